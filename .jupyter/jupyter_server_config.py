"""What `make lab` tells JupyterLab's server, beside its command line (the folder is its JUPYTER_CONFIG_PATH)."""

import sys

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

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


class CourseFiles(AsyncLargeFileManager):
    """Opens notebooks as if this Python had saved them.

    The kernel tells JupyterLab its version of Python: were another one in the file, opening a notebook would change it,
    and closing it would ask whether to save.
    """

    async def get(self, path, *arguments, **options):
        model = await super().get(path, *arguments, **options)
        if model["type"] == "notebook" and model["content"]:
            language = model["content"]["metadata"].get("language_info", {})
            if language.get("name") == "python":
                language["version"] = sys.version.split()[0]
        return model


c = get_config()  # noqa: F821
c.ServerApp.contents_manager_class = CourseFiles
c.FileContentsManager.pre_save_hook = say_how_to_use_again
