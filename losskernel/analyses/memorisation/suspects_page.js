const cards = [...document.querySelectorAll("article")];
const [chosen, disputed, find, shown] = ["class", "disputed", "find", "shown"].map((id) => document.getElementById(id));
function filter() {
  const text = find.value.trim().toLowerCase();
  for (const card of cards) {
    card.hidden = (chosen.value !== "" && !JSON.parse(card.dataset.classes).includes(chosen.value))
      || (disputed.checked && card.dataset.disputed === "0")
      || !card.dataset.name.includes(text);
  }
  shown.textContent = `${cards.filter((card) => !card.hidden).length} shown`;
}
for (const control of [chosen, disputed, find]) control.addEventListener("input", filter);
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
