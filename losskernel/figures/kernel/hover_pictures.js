// Plotly's hover boxes cannot hold pictures: they lie once in layout.meta, found by the point's probe index.
// {plot_id} is filled in by plotly.
const plot = document.getElementById("{plot_id}");
const pictures = (plot.layout.meta || {}).thumbnails;
if (pictures) {
  const picture = document.createElement("img");
  picture.style.cssText = "position:fixed;display:none;width:96px;height:96px;object-fit:contain;" +
    "image-rendering:pixelated;background:#fff;border:1px solid #888;pointer-events:none;z-index:10";
  plot.appendChild(picture);
  plot.on("plotly_hover", (hover) => {
    const point = hover.points[0];
    const mouse = hover.event || {clientX: 0, clientY: 0};
    const clear = 10 * String(point.text || "").split("<br>").length + 16;  // the half height of the text's box
    const above = mouse.clientY - clear - 96;
    picture.src = pictures[point.customdata];
    picture.style.left = Math.max(4, Math.min(mouse.clientX - 48, window.innerWidth - 104)) + "px";
    picture.style.top = (above > 0 ? above : mouse.clientY + clear) + "px";
    picture.style.display = "block";
  });
  plot.on("plotly_unhover", () => { picture.style.display = "none"; });
}
