// Sharing what lies on the daemon's machine.

import { el, notice } from "../common/dom.js";
import { ask } from "../common/live.js";
import { check, field, formDialog, text, tiersOf, wordsOf } from "./dialogs.js";
import { withChooser } from "./folders.js";
import { asOwner } from "./login.js";

export function share() {
  const input = text("", { id: "share-input", placeholder: "/srv/film.mkv", class: "mono", autofocus: true });
  const description = text("", { id: "share-description" });
  const labels = text("", { id: "share-labels", placeholder: "with commas between" });
  const hidden = check("Also what begins with a dot", true, { id: "share-hidden" });
  const links = check("Also what symbolic links in a folder lead to", false, { id: "share-links" });
  const secret = check("Private: not in catalogues, peers from its trackers alone", false, { id: "share-private" });
  const exclude = text("", { id: "share-exclude", placeholder: "*.tmp, cache/", class: "mono" });
  const trackers = el("textarea", { id: "share-trackers", rows: 3, class: "mono", spellcheck: false });
  const source = text("", { id: "share-source" });
  const place = field("File or folder on the daemon's machine", input, "Its whole path. It is hashed first, and the list shows how far that is; nothing of it is changed.");
  withChooser(input, { share: true });
  formDialog({
    title: "Share a file or folder", action: "Share", id: "share-yes",
    content: [
      place,
      field("Description", description), field("Labels", labels), secret.node, hidden.node, links.node,
      el("details", { class: "more" }, el("summary", { text: "More" }),
        field("Leave out", exclude, "Patterns of files and folders, with commas between."),
        field("Trackers", trackers, "One a line; empty: the daemon's own."),
        field("Source", source, "A word that gives the same files another info-hash.")),
    ],
    submit: async () => {
      const path = input.value.trim();
      if (!path.startsWith("/")) throw new RangeError("write the whole path, from / on");
      const body = {
        input: path, private: secret.input.checked, description: description.value.trim() || null, labels: wordsOf(labels.value),
        no_hidden: !hidden.input.checked, follow_links: links.input.checked, exclude: wordsOf(exclude.value),
        trackers: tiersOf(trackers.value), source: source.value.trim() || null,
      };
      const answer = await asOwner(() => ask("/seed?wait=false", { method: "POST", body }));
      notice([answer.duplicate ? `${answer.name} is shared already` : `${answer.name} is being hashed`, ...answer.warnings].join("; "));
    },
  });
}
