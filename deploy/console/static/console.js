// The page refreshes itself through htmx; all that is left to say is when that stopped working.
const say = (state) => () => { document.documentElement.dataset.connection = state; };
document.addEventListener("htmx:error", say("lost"));
document.addEventListener("htmx:response:error", say("lost"));
document.addEventListener("htmx:after:swap", say("live"));
