package cli

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

// followLogs shows the newest lines and stays for those to come. When vpnd
// goes away it waits and goes on after the last line that was seen.
func followLogs(ctx context.Context, f *factory, o *logsOptions, query string) error {
	conn, err := f.conn()
	if err != nil {
		return err
	}
	seen := lastSeen{}
	p := o.window.printer(f)
	shown := map[string]bool{} // some may come once more
	begun := o.limit == 0
	begin := func() error { // when vpnd follows already, so that nothing lies between
		begun = true
		l, _, err := fetchLogs(ctx, f, query, o.limit)
		if err != nil {
			return err
		}
		for _, r := range l.Items {
			shown[r.ID] = true
		}
		return p.print(l.Items)
	}
	for away := false; ; {
		req := &logs.FollowRequest{Ask: logs.Ask{Query: query}, Since: seen.since(), Marks: len(seen) == 0}
		err := logs.Follow.Follow(ctx, conn, req, func(r logs.Record) error {
			if away {
				f.note("vpnd is back")
				away = false
			}
			seen.note(r)
			switch {
			case !begun:
				return begin()
			case r.Mark, shown[r.ID]:
				return nil
			case r.Missed > 0:
				f.note("%s missed here: the reader was too slow", view.Count(int(min(r.Missed, 1<<62)), "line was", "lines were"))
			}
			return p.print([]logs.Record{r})
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && fault.CodeOf(err) != fault.Unavailable {
			return err
		}
		if !away {
			away = true
			f.note("vpnd went away; waiting for it")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// lastSeen is the id of the last line that was seen of each day. Lines of
// another day than today come late, or from a clock that is wrong.
type lastSeen map[string]string

// rememberedDays is how many days vpnd is told about; what comes late for those
// before them while it is away is not shown.
const rememberedDays = 40

func (s lastSeen) note(r logs.Record) {
	s[r.Time.UTC().Format(time.DateOnly)] = r.ID
	if len(s) > rememberedDays {
		delete(s, slices.Min(slices.Collect(maps.Keys(s))))
	}
}

func (s lastSeen) since() string {
	var ids []string
	for _, day := range slices.Sorted(maps.Keys(s)) {
		ids = append(ids, s[day])
	}
	return strings.Join(ids, ",")
}
