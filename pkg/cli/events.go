package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/control"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

type eventsOptions struct {
	follow     bool
	kind, user string
	kinds      []string // only these, when there are any
	since      since
}

func newEvents(f *factory) *cobra.Command {
	o := &eventsOptions{since: since{now: f.now}}
	cmd := &cobra.Command{
		Use: "events", Aliases: []string{"event"}, Short: "Show what happened, or with -f what happens",
		Long: `Show what happened lately; vpnd remembers the last 10,000 events. With -f stay
and show what happens, across restarts of vpnd; -o json then prints one object
per line. A reader that is too slow loses the oldest events, and the next one
says how many.`,
		Example: `  vpnctl events -f --type session
  vpnctl events --user alice --since 1h`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runEvents(cmd.Context(), f, o) },
	}
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "stay and show new events")
	cmd.Flags().StringVar(&o.kind, "type", "", "only this type or kind, such as session.opened or session")
	cmd.Flags().StringVar(&o.user, "user", "", "only events of this user")
	cmd.Flags().Var(&o.since, "since", "begin then, such as 5m, 36h or 2026-01-31")
	_ = cmd.RegisterFlagCompletionFunc("user", f.complete(userNames))
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(
		[]string{"session", "user", "device", "auth", "service", "lane", "tor", "leak", "control"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func runEvents(ctx context.Context, f *factory, o *eventsOptions) error {
	conn, err := f.conn()
	if err != nil {
		return err
	}
	req := &control.EventsRequest{Type: o.kind, User: o.user, Since: o.since.t, Follow: o.follow}
	if o.follow {
		return followEvents(ctx, f, conn, req, o.only(eventPrinter(f)))
	}
	l := &rpc.List[events.Event]{Items: []events.Event{}}
	err = control.Events.Follow(ctx, conn, req, o.only(func(e events.Event) error {
		l.Items = append(l.Items, e)
		return nil
	}))
	if err != nil && !errors.Is(err, rpc.ErrEnded) {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	l.Total = len(l.Items)
	return printList(f, view.Events(), l)
}

// only passes on events of the kinds that are wanted; of the others it keeps
// how many were lost before them.
func (o *eventsOptions) only(next func(events.Event) error) func(events.Event) error {
	if len(o.kinds) == 0 {
		return next
	}
	missed := uint64(0)
	return func(e events.Event) error {
		missed += e.Missed
		if kind, _, _ := strings.Cut(e.Type, "."); !slices.Contains(o.kinds, kind) {
			return nil
		}
		e.Missed, missed = missed, 0
		return next(e)
	}
}

// followEvents stays on the feed. When vpnd goes away it waits and goes on
// where it was; events are told once.
func followEvents(ctx context.Context, f *factory, conn *rpc.Conn, req *control.EventsRequest, print func(events.Event) error) error {
	told := map[id.Event]bool{} // those of the latest time, which a resumed feed repeats
	var latest time.Time
	connected, away := false, false
	for {
		err := control.Events.Follow(ctx, conn, req, func(e events.Event) error {
			if away {
				f.note("vpnd is back")
				away = false
			}
			connected = true
			if told[e.ID] {
				return nil
			}
			if e.Time.After(latest) {
				latest = e.Time
				clear(told)
			}
			told[e.ID] = true
			return print(e)
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		code := fault.CodeOf(err)
		if err != nil && code != fault.Unavailable || !connected && !errors.Is(err, rpc.ErrEnded) {
			return err
		}
		if connected = true; !away {
			away = true
			f.note("vpnd went away; waiting for it")
		}
		if req.Since = latest; latest.IsZero() {
			req.Since = f.now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// eventPrinter prints events one by one; a terminal gets columns.
func eventPrinter(f *factory) func(events.Event) error {
	t := view.Events()
	return func(e events.Event) error {
		if !f.redraws() {
			return printItems(f, t, []events.Event{e})
		}
		_, err := fmt.Fprintln(f.out, rows(f, t, []events.Event{e})[1]) // without the titles
		return err
	}
}
