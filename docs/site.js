// For readers without a mouse: what scrolls sideways can be reached by keyboard, and captions in the contents have a level.
function label() {
  for (const box of document.querySelectorAll("pre, .highlight, .output, .cell_output, .table-wrapper, div.math")) {
    const scrolls = box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "visible";
    scrolls ? box.setAttribute("tabindex", "0") : box.removeAttribute("tabindex");
  }
  for (const caption of document.querySelectorAll(".caption[role=heading]")) caption.setAttribute("aria-level", "2");
}
addEventListener("load", label);
addEventListener("resize", label);
