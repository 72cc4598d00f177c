"use strict";
// Without this file all works but the theme's switch and the live update.
(() => {
  const themes = ["automatic", "light", "dark"];
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const store = (name) => { try { localStorage.setItem("theme", name); } catch { /* for this page only */ } };
  const apply = (name) => {
    if (name === "light" || name === "dark") document.documentElement.dataset.theme = name;
    else delete document.documentElement.dataset.theme;
  };
  let theme = themes.includes(stored()) ? stored() : "automatic";
  apply(theme);  // in the head: before anything is drawn

  const beginTheme = () => {
    const button = document.getElementById("theme");
    const show = () => { button.textContent = `Theme: ${theme}`; };
    button.hidden = false;
    show();
    button.addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      store(theme);
      apply(theme);
      show();
    });
  };

  const beginLive = () => {
    const part = document.getElementById("live");
    if (!part) return;
    const said = document.getElementById("live-state");
    const pause = document.getElementById("live-pause");
    const tell = (text) => { if (said.textContent !== text) said.textContent = text; };
    let paused = false;
    let asking = false;
    const look = async () => {
      if (paused || asking || document.hidden) return;
      asking = true;
      try {
        const answer = await fetch(part.dataset.live, { cache: "no-store", redirect: "error" });
        if (answer.status === 401 || answer.status === 403) { location.reload(); return; }
        if (!answer.ok) throw new Error(String(answer.status));
        const text = await answer.text();
        // Not under somebody's keyboard or selection.
        if (!part.contains(document.activeElement) && getSelection().isCollapsed) part.innerHTML = text;
        tell("");
      } catch {
        tell("No answer from the node");
      } finally {
        asking = false;
      }
    };
    pause.hidden = false;
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.setAttribute("aria-pressed", String(paused));
      tell(paused ? "Paused" : "");
      look();
    });
    setInterval(look, 1000 * Number(part.dataset.every));
  };

  const beginSlices = async () => {
    const part = document.getElementById("slices");
    if (!part) return;
    const said = document.getElementById("slices-state");
    said.textContent = "Loading the slices…";
    let found;
    try {
      const answer = await fetch(part.dataset.slices, { cache: "no-store", redirect: "error" });
      if (!answer.ok) throw new Error(String(answer.status));
      found = await answer.json();
    } catch {
      said.textContent = "The node does not give the slices now.";
      return;
    }
    if (!found.axial.length) {
      said.textContent = "The images of the analysed series are not here any more.";
      return;
    }
    document.getElementById("slices-shown").hidden = false;
    said.textContent = "";
    const layers = [...part.querySelectorAll("[data-layer]")];
    const isShown = (kind) => layers.some((box) => box.dataset.layer === kind && box.checked);
    const panes = [...part.querySelectorAll(".pane")].map((pane) => {
      const plane = pane.dataset.plane;
      const slider = pane.querySelector("input");
      const picture = pane.querySelector(".slice");
      const many = plane === "axial" ? found.axial.length : found.coronal;
      // An axial image is shown as it is stored: it may be turned.
      if (plane === "axial") {
        [...pane.querySelectorAll(".side")].forEach((side, at) => {
          side.textContent = found.sides[at] || "";
          side.hidden = !found.sides;
        });
      }
      slider.max = many;
      slider.value = Math.ceil(many / 2);
      const source = (kind, n) => (plane === "axial" && kind === "image" ? found.axial[n - 1] : `${found.layers}/${plane}/${kind}/${n}`);
      let busy = false;
      // One slice at a time: whoever scrolls quickly sees those that the node can give.
      const show = async () => {
        if (busy) return;
        busy = true;
        let n;
        do {
          n = Number(slider.value);
          const images = [[picture, "image"], ...[...pane.querySelectorAll(".over")].map((over) => [over, over.dataset.kind])];
          await Promise.all(images.map(async ([image, kind]) => {
            image.hidden = kind !== "image" && !isShown(kind);
            if (image.hidden) return;
            const next = source(kind, n);
            if (image.getAttribute("src") === next) return;
            image.src = next;
            try { await image.decode(); } catch { if (kind === "image") said.textContent = `Slice ${n} cannot be shown.`; }
          }));
          pane.querySelector("output").textContent = `${n} of ${many}`;
          picture.alt = `${plane} slice ${n} of ${many}, lung window`;
        } while (n !== Number(slider.value));
        busy = false;
      };
      slider.addEventListener("input", show);
      pane.querySelector(".picture").addEventListener("wheel", (event) => {
        event.preventDefault();
        slider.value = Number(slider.value) + Math.sign(event.deltaY);
        show();
      }, { passive: false });
      return show;
    });
    layers.forEach((box) => box.addEventListener("change", () => panes.forEach((show) => show())));
    panes.forEach((show) => show());
  };

  document.addEventListener("DOMContentLoaded", () => { beginTheme(); beginLive(); beginSlices(); });
})();
