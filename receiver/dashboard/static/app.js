// What a page does beyond what links and forms do: it works without any of this, but for liveness.
import { followKeys } from "./keys.js";
import { follow } from "./live.js";
import { followTheme } from "./theme.js";
import { dress } from "./dress.js";
import { followSelection } from "./select.js";

dress(document);
followTheme();
const live = follow(document.querySelector("main[data-live]"));
followKeys(live);
followSelection();
