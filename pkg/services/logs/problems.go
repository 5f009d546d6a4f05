package logs

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	api "vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/logstore"
)

// lagging is when lines that are not in yet want attention: a reader that keeps
// up is behind by milliseconds.
const lagging = time.Minute

// named is how many paths one problem names.
const named = 3

// problems lists what wants attention, the gravest first.
func problems(st *api.Status, kept *logstore.Status, refused *fault.Error) []api.Problem {
	out := []api.Problem{}
	add := func(hint, what string, args ...any) {
		out = append(out, api.Problem{What: fmt.Sprintf(what, args...), Hint: hint})
	}
	if refused != nil {
		hint := refused.Hint
		if hint == "" {
			hint = "the log of service logs tells more"
		}
		add(hint, "lines are not taken in: %s", refused.Message)
	}
	switch days := damagedDays(kept.Aside); len(days) {
	case 0:
	case 1:
		add("lines of that day may still be in the log files; remove the .damaged file in "+filepath.Join(st.Store, "days")+" when it is of no use",
			"the lines of %s do not answer: their file is damaged and was set aside", days[0])
	default:
		add("lines of those days may still be in the log files; remove the .damaged files in "+filepath.Join(st.Store, "days")+" when they are of no use",
			"the lines of %s do not answer: their files are damaged and were set aside", some(days))
	}
	if paths, why := unreadable(st); len(paths) > 0 {
		add("let the account of service logs read it, or take it out of logs.dirs", "%s cannot be read: %s", some(paths), why)
	}
	if refused == nil && st.LagMs > lagging.Milliseconds() {
		worst := slices.MaxFunc(st.Files, func(a, b api.File) int { return int(a.LagMs - b.LagMs) })
		lag := (time.Duration(worst.LagMs) * time.Millisecond).Truncate(time.Second)
		add("nothing is lost, the files wait; 'vpnctl logs status' shows how far each is", "lines are taken in %s late: %s is the furthest behind", lag, worst.Path)
	}
	if kept.Over > 0 {
		add("raise logs.max_size_mib, or have the services say less", "what is kept takes %d MiB more than logs.max_size_mib allows: the newest lines are never removed", (kept.Over+1<<20-1)>>20)
	}
	return out
}

// damagedDays are the days of files that were set aside, each once.
func damagedDays(aside []logstore.Damaged) []string {
	var out []string
	for _, a := range aside {
		if day := a.Day.String(); a.Day != logstore.NoDay && !slices.Contains(out, day) {
			out = append(out, day)
		}
	}
	return out
}

// unreadable are the folders and files that are to be read and cannot be, and
// why the first of them cannot.
func unreadable(st *api.Status) (paths []string, why string) {
	for _, f := range st.Files {
		if f.Skipped == "" || slices.Contains(left, f.Skipped) {
			continue
		}
		if paths = append(paths, f.Path); why == "" {
			why = f.Skipped
		}
	}
	return paths, why
}

// left are the reasons that make nobody worry: such a thing holds no lines.
var left = []string{"symbolic link", "named pipe", "socket", "device", "not a regular file", "refused by configuration"}

// some names the first of a list, and how many more there are.
func some(list []string) string {
	if len(list) <= named {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:named], ", "), len(list)-named)
}
