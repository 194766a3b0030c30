// Claims: show the verdicts whose buttons are pressed.
for (const button of document.querySelectorAll(".filter button")) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    for (const claim of document.querySelectorAll(".claim"))
      if (claim.dataset.verdict === button.dataset.verdict) claim.hidden = !on;
  });
}
// Videos: play what is on the screen.
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) target.play().catch(() => {});
    else target.pause();
  }
});
for (const video of document.querySelectorAll("video")) {
  video.controls = false; // they would cover it; a click stops and starts
  video.addEventListener("click", () => (video.paused ? video.play() : video.pause()));
  seen.observe(video);
}
