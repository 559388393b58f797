import { data, make } from "/static/parts.js";
const key = document.body.dataset.key;
const phone = window.matchMedia("(max-width: 760px)");
const places = [...document.querySelectorAll("[data-chart]")];
// Expressions of a chart are interpreted, never made into code: the page forbids that.
const options = { actions: false, renderer: "svg", ast: true, defaultStyle: false, tooltip: { disableDefaultStyle: true } };
let specs = null;
async function draw() {
  for (const place of places) {
    place.replaceChildren();
    try {
      await window.vegaEmbed(place, specs[place.dataset.chart][phone.matches ? "narrow" : "wide"], options);
    } catch (error) {
      place.replaceChildren(make("p", { class: "quiet" }, `This chart can't be drawn: ${error.message}`));
    }
  }
  document.documentElement.dataset.charts = String(document.querySelectorAll("[data-chart] svg").length);
}
try {
  specs = await data(`/api/g/${key}/charts`);
  phone.addEventListener("change", draw);
  await draw();
} catch (error) {
  for (const place of places) place.replaceChildren(make("p", { class: "quiet" }, error.message));
}
