// The bar: branches and seeds on and off in every figure, the theme, and what can be copied.
const switches = [...document.querySelectorAll(".controls [data-branch], .controls [data-seed]")];
const keyOf = (button) => (button.dataset.branch !== undefined ? ["branch", button.dataset.branch] : ["seed", Number(button.dataset.seed)]);
const all = document.getElementById("shown")?.textContent;
function tell(sentence) {
  const names = [...off.branch, ...[...off.seed].map((s) => `seed ${s}`)];
  document.getElementById("said").textContent = sentence;
  if (!switches.length) return;
  document.getElementById("shown").textContent = names.length ? `all but ${names.join(", ")}` : all;
  document.getElementById("everything").disabled = !names.length;
}
function press(button, on) {
  const [kind, key] = keyOf(button);
  on ? off[kind].delete(key) : off[kind].add(key);
  button.setAttribute("aria-pressed", String(on));
}
for (const button of switches) {
  const look = TOP.get(button.dataset.branch);
  if (look) button.prepend(swatch(look));
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    press(button, on);
    const [kind, key] = keyOf(button);
    tell(`${kind} ${key} is ${on ? "shown" : "hidden"} in all figures`);
    refresh();
  });
}
document.getElementById("everything")?.addEventListener("click", () => {
  switches.forEach((button) => press(button, true));
  tell("everything is shown in all figures");
  refresh();
});
tell("");

const themed = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : system.matches);
const label = () => { themed.textContent = isDark() ? "Light theme" : "Dark theme"; };
themed.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  label();
  refresh();
});
system.addEventListener("change", () => { label(); refresh(); });
label();

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", document.body, { value: text, className: "hidden" });
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    await copy(document.getElementById(button.dataset.copies).textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
// What is folded away is unfolded where a link leads to it, and on paper.
function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
}
addEventListener("hashchange", unfold);
unfold();
