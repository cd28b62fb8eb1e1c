// ---- two episodes side by side ------------------------------------------------------------------

// Turns of one number stand beside one another, and the turn where the two part is in view.
function align(pair) {
  const [left, right] = [...pair.children].map((box) => [...box.querySelectorAll(".turn")]);
  if (!left?.length || !right?.length || getComputedStyle(pair).gridTemplateColumns.split(" ").length < 2) return;
  const box = (turn) => turn.getBoundingClientRect(), gap = box(left[0]).top - box(right[0]).top;
  (gap > 0 ? right : left)[0].style.marginTop = `calc(.7rem + ${Math.abs(gap)}px)`;
  left.forEach((turn, n) => {
    if (!right[n]) return;
    const height = Math.max(box(turn).height, box(right[n]).height);
    turn.style.minHeight = right[n].style.minHeight = `${height}px`;
  });
  pair.querySelector(".differs")?.scrollIntoView({ block: "center" });
}
