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

  document.addEventListener("DOMContentLoaded", () => { beginTheme(); beginLive(); });
})();
