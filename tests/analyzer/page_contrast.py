"""JavaScript that tells what a page's text is hard to read against, and which headings skip a level."""

# ratio(element): of its text's colour to what it stands on, as WCAG reckons.
RATIO = """
  const lum = c => {
    const [r, g, b] = c.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (!c.startsWith('rgba(0, 0, 0, 0')) return c;
    }
    return 'rgb(255, 255, 255)';
  };
  const ratio = e => {
    const [a, b] = [lum(getComputedStyle(e).color), lum(ground(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
"""
CONTRAST = f"""
(() => {{{RATIO}
  const texts = [...document.querySelectorAll('p, dt, dd, td, th, a, summary, h1, h2, h3, h4, pre, mark')];
  return Math.min(...texts.filter(e => e.textContent.trim()).map(ratio));
}})()
"""
# Words of charts whose contrast is less than AA asks, against the marks below their middle or the page. Charts of a
# dark page go through invert(1) and hue-rotate(180deg), whose matrix is the CSS standard's, but cells of maps.
CHART_CONTRAST = """
(() => {
  const MAPS = ':is([data-chart^=heatmap], [data-chart=task_budget_map]) :is(.mark-rect, .mark-text.role-mark)';
  const canvas = document.createElement('canvas').getContext('2d');
  const rgba = text => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255); };
  const turned = ([r, g, b]) => { [r, g, b] = [1 - r, 1 - g, 1 - b];
    return [-.574 * r + 1.43 * g + .144 * b, .426 * r + .43 * g + .144 * b, .426 * r + 1.43 * g - .856 * b]
      .map(v => Math.min(1, Math.max(0, v))); };
  const lum = c => { const [r, g, b] = c.map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const isDark = matchMedia('(prefers-color-scheme: dark)').matches;
  const seen = (color, e) => isDark && !e.closest(MAPS) ? turned(color) : color;
  const paper = rgba(getComputedStyle(document.querySelector('section')).backgroundColor).slice(0, 3);
  const faint = [];
  for (const svg of document.querySelectorAll('.chart svg')) {
    const areas = [...svg.querySelectorAll('.mark-rect path')]
      .filter(e => ![null, 'none'].includes(e.getAttribute('fill')))
      .map(e => [e, e.getBoundingClientRect(),
        +(e.getAttribute('opacity') ?? 1) * +(e.getAttribute('fill-opacity') ?? 1)]);
    for (const word of svg.querySelectorAll('text')) {
      if (!word.textContent.trim() || word.getAttribute('opacity') === '0') continue;
      const box = word.getBoundingClientRect();
      const x = box.x + box.width / 2, y = box.y + box.height / 2;
      let ground = paper;
      for (const [e, area, opacity] of areas) {
        if (area.left > x || area.right < x || area.top > y || area.bottom < y) continue;
        if (!(e.compareDocumentPosition(word) & Node.DOCUMENT_POSITION_FOLLOWING)) continue;
        const fill = seen(rgba(getComputedStyle(e).fill).slice(0, 3), e);
        ground = ground.map((c, i) => c * (1 - opacity) + fill[i] * opacity);
      }
      const ink = seen(rgba(getComputedStyle(word).fill).slice(0, 3), word);
      const [a, b] = [lum(ink), lum(ground)].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < 4.5) faint.push([word.closest('[data-chart]').dataset.chart, word.textContent, +ratio.toFixed(2)]);
    }
  }
  return faint;
})()
"""
SKIPPED_HEADINGS = """
[...document.querySelectorAll('h1, h2, h3, h4, h5')]
  .filter((h, i, all) => i && h.tagName[1] > +all[i - 1].tagName[1] + 1)
  .map(h => h.textContent)
"""
