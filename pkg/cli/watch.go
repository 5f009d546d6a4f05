package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/control"
	"vpnd/pkg/api/events"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

const (
	watchEvery = time.Second            // counters change without events
	watchPause = 250 * time.Millisecond // at most four times a second
)

func watchFlag(cmd *cobra.Command, watch *bool) {
	cmd.Flags().BoolVarP(watch, "watch", "w", false, "stay and show what changes")
}

// showList prints a list, or watches it.
func showList[T any](ctx context.Context, f *factory, watch bool, t view.Table[T], key func(T) string, fetch func(context.Context) (*rpc.List[T], error)) error {
	if !watch {
		l, err := fetch(ctx)
		if err != nil {
			return err
		}
		return printList(f, t, l)
	}
	if f.redraws() {
		return f.redraw(ctx, func(ctx context.Context) ([]string, error) {
			l, err := fetch(ctx)
			if err != nil {
				return nil, err
			}
			if len(l.Items) == 0 {
				return []string{"no " + plural(t.Noun)}, nil
			}
			return rows(f, t, l.Items), nil
		})
	}
	return appendChanges(ctx, f, key, func(ctx context.Context) ([]T, error) {
		l, err := fetch(ctx)
		if err != nil {
			return nil, err
		}
		return l.Items, nil
	}, func(v T) error { return printItems(f, t, []T{v}) }, func(v T) T { return v })
}

// showPages prints things that were named, or watches them.
func showPages[T any](ctx context.Context, f *factory, watch bool, t view.Table[T], names []string, get func(ctx context.Context, name string) (T, error)) error {
	if !watch {
		items, err := each(ctx, names, get)
		if perr := printPages(f, t, len(names), items); perr != nil {
			return perr
		}
		return err
	}
	fetch := func(ctx context.Context) ([]T, error) { return each(ctx, names, get) }
	if f.redraws() {
		return f.redraw(ctx, func(ctx context.Context) ([]string, error) {
			items, err := fetch(ctx)
			if err != nil {
				return nil, err
			}
			var lines []string
			for i, v := range items {
				if i > 0 {
					lines = append(lines, "")
				}
				lines = append(lines, page(f, t, v, true)...)
			}
			return lines, nil
		})
	}
	return appendChanges(ctx, f, t.Name, fetch, func(v T) error { return printItems(f, t, []T{v}) }, func(v T) T { return v })
}

// redraws tells whether watching repaints a screen instead of adding lines.
func (f *factory) redraws() bool {
	return f.outTTY && (f.output == "table" || f.output == "wide")
}

// appendChanges prints every item that is new or has changed, for ever.
// compare gives the part of an item whose changes count.
func appendChanges[T any](ctx context.Context, f *factory, key func(T) string, fetch func(context.Context) ([]T, error), print func(T) error, compare func(T) T) error {
	last := map[string]string{}
	return f.poll(ctx, func(ctx context.Context) error {
		items, err := fetch(ctx)
		if err != nil {
			return err
		}
		now := make(map[string]string, len(items))
		for _, v := range items {
			text, err := jsonText(compare(v), false)
			if err != nil {
				return err
			}
			now[key(v)] = string(text)
			if last[key(v)] == string(text) {
				continue
			}
			if err := print(v); err != nil {
				return err
			}
		}
		last = now
		return nil
	}, func(error) {})
}

// redraw shows a screen that is painted again when it has changed, on the
// terminal's other page, and leaves the last one behind.
func (f *factory) redraw(ctx context.Context, draw func(context.Context) ([]string, error)) error {
	const enter, leave = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
	fmt.Fprint(f.out, enter)
	var lines []string
	banner, shown := "", ""
	paint := func() {
		width, height := f.size()
		screen := lines
		if banner != "" {
			screen = append([]string{f.theme().Paint(view.Fit(banner, width), view.Warn)}, screen...)
		}
		if hidden := len(screen) - height + 1; hidden > 1 && height > 1 {
			more := f.theme().Paint(view.Fit(fmt.Sprintf("(%d more lines do not fit)", hidden), width), view.Faint)
			screen = append(slices.Clone(screen[:height-1]), more)
		}
		text := strings.Join(screen, "\n")
		if text == shown {
			return
		}
		shown = text
		// Each line is cleared before it is written: afterwards would take the
		// last column with it. Terminals that know synchronized output show
		// no half screen.
		fmt.Fprint(f.out, "\x1b[?2026h\x1b[?7l\x1b[H\x1b[2K", strings.ReplaceAll(text, "\n", "\r\n\x1b[2K"), "\x1b[?7h")
		if len(screen) < height {
			fmt.Fprint(f.out, "\r\n\x1b[J")
		}
		fmt.Fprint(f.out, "\x1b[?2026l")
	}
	err := f.poll(ctx, func(ctx context.Context) error {
		next, err := draw(ctx)
		if err != nil {
			return err
		}
		lines, banner = next, ""
		paint()
		return nil
	}, func(err error) {
		banner = f.explain(err).Message + " (trying again)"
		paint()
	})
	fmt.Fprint(f.out, leave)
	if perr := f.printLines(lines); perr != nil {
		return perr
	}
	return err
}

// poll looks now, after every event and every second, until ctx ends. A vpnd
// that is away is waited for; away is told about it.
func (f *factory) poll(ctx context.Context, look func(context.Context) error, away func(error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := f.conn()
	if err != nil {
		return err
	}
	happened := make(chan struct{}, 1)
	go ring(ctx, conn, happened)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	first := true
	for {
		err := look(ctx)
		switch code := fault.CodeOf(err); {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			first = false
		case first || code != fault.Unavailable && code != fault.Timeout:
			return err
		default:
			away(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watchPause):
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-happened:
		}
	}
}

// ring makes a sign for every event. Without the feed the seconds do.
func ring(ctx context.Context, conn *rpc.Conn, happened chan<- struct{}) {
	for ctx.Err() == nil {
		_ = control.Events.Follow(ctx, conn, &control.EventsRequest{Follow: true}, func(events.Event) error {
			select {
			case happened <- struct{}{}:
			default:
			}
			return nil
		})
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}
