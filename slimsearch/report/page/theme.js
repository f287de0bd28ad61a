// ---- colors, and links within the page, whose address says what is selected

{
  const root = document.documentElement, button = byId("theme"), names = ["auto", "light", "dark"];
  let theme = "auto";
  // A page opened from disk may have no storage: the choice is then lost when it is closed.
  try { theme = localStorage.getItem("slimsearch-colours") || "auto"; } catch (error) { theme = "auto"; }
  const put = () => {
    if (theme === "auto") root.removeAttribute("data-theme"); else root.setAttribute("data-theme", theme);
    button.lastChild.textContent = {auto: "Auto", light: "Light", dark: "Dark"}[theme];
    button.setAttribute("aria-label", `Colours: ${{auto: "as the system has them", light: "light", dark: "dark"}[theme]}`);
  };
  if (!names.includes(theme)) theme = "auto";
  button.addEventListener("click", () => {
    theme = names[(names.indexOf(theme) + 1) % names.length];
    try { localStorage.setItem("slimsearch-colours", theme); } catch (error) { /* as above */ }
    put();
  });
  put();
}
for (const link of document.querySelectorAll(".bar-top a[href^='#'], .skip")) link.addEventListener("click", event => {
  const place = byId(link.hash.slice(1));
  event.preventDefault();
  place.tabIndex = -1;
  place.focus({preventScroll: true});
  place.scrollIntoView();
});
