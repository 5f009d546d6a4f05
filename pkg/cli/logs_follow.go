package cli

import (
	"context"
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
	req := &logs.FollowRequest{Ask: logs.Ask{Query: query}}
	if req.Since, err = newestLine(ctx, f); err != nil {
		return err
	}
	p := o.window.printer(f)
	shown := map[string]bool{} // some may have come since newestLine looked
	if o.limit > 0 {
		l, _, err := fetchLogs(ctx, f, query, o.limit)
		if err != nil {
			return err
		}
		if err := p.print(l.Items); err != nil {
			return err
		}
		for _, r := range l.Items {
			shown[r.ID] = true
		}
	}
	for away := false; ; {
		err := logs.Follow.Follow(ctx, conn, req, func(r logs.Record) error {
			if away {
				f.note("vpnd is back")
				away = false
			}
			req.Since = r.ID
			if shown[r.ID] {
				return nil
			}
			if r.Missed > 0 {
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

// newestLine is where a follower begins that has seen nothing yet: what comes
// while it connects, or while vpnd is away, is not lost to it.
func newestLine(ctx context.Context, f *factory) (string, error) {
	l, err := call(ctx, f, logs.Query, &logs.QueryRequest{Limit: 1, Order: "newest"})
	if err != nil || len(l.Items) == 0 {
		return "", err
	}
	return l.Items[0].ID, nil
}
