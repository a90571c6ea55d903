"""What `make lab` tells JupyterLab's server, beside its command line (the folder is its JUPYTER_CONFIG_PATH)."""

WIDGET = "application/vnd.jupyter.widget-view+json"


def say_how_to_use_again(model, **_):
    """Save a widget as its description and what to do: it is gone when the notebook is opened again.

    JupyterLab would show "Error displaying widget: model not found" in its place.
    """
    if model["type"] != "notebook":
        return
    for cell in model["content"].get("cells", []):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if data.pop(WIDGET, None) is not None:
                described = "".join(data.get("text/plain", ""))
                data["text/plain"] = f"{described} Run this cell to use it." if described else ""


c = get_config()  # noqa: F821
c.FileContentsManager.pre_save_hook = say_how_to_use_again
