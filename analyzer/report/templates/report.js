"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const phone = window.matchMedia("(max-width: 760px)");
  const places = [...document.querySelectorAll("[data-chart]")];
  const drawn = new Map();
  async function draw(place) {
    const size = phone.matches ? "narrow" : "wide";
    if (drawn.get(place) === size) return;
    drawn.set(place, size);
    place.replaceChildren();
    await vegaEmbed(place, specs[place.dataset.chart][size], { actions: false, renderer: "svg", tooltip: true });
  }
  async function drawAll() {
    for (const place of places) await draw(place);
    document.documentElement.dataset.charts = String(places.length);
  }
  phone.addEventListener("change", drawAll);
  drawAll();
})();
