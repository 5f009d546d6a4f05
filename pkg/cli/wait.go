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
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

const (
	waitPoll = 100 * time.Millisecond
	askTime  = 5 * time.Second // one question while waiting: a service that hangs must not eat the whole time
)

// waited is one target that is where it should be.
type waited struct {
	Target  string `json:"target"`
	State   string `json:"state"`
	Seconds int    `json:"seconds"`
}

func newWait(f *factory) *cobra.Command {
	return &cobra.Command{
		Use: "wait TARGET=STATE…", Short: "Wait until things are as they should be",
		Long: `Wait until every target is in its state, as long as --timeout says (default 60s),
and exit 8 when that does not happen.

  vpnd=live|ready
  service/NAME=ready|running|stopped|…
  tor=up|maintenance|blocked
  lane/NAME=up|maintenance|blocked|down
  user/NAME=active|suspended|deleted
  session/NAME=online|offline|closed`,
		Example: `  vpnctl wait vpnd=ready && vpnctl user create alice --generate-password
  vpnctl wait session/alice=online --timeout 5m`,
		Args: oneOrMore("target"), ValidArgsFunction: f.complete(waitTargets),
		RunE: func(cmd *cobra.Command, args []string) error { return runWait(cmd.Context(), f, args) },
	}
}

// target is something whose state can be asked.
type target struct {
	text string
	want string
	see  string // the command that shows why it is not
	ask  func(ctx context.Context, f *factory) (state string, err error)
}

func runWait(ctx context.Context, f *factory, args []string) error {
	targets := make([]target, len(args))
	for i, a := range args {
		t, err := parseTarget(a)
		if err != nil {
			return err
		}
		targets[i] = t
	}
	began := f.now()
	var done []waited
	for _, t := range targets {
		state := ""
		err := f.until(ctx, t.text+" is not "+inState(t.want), t.see, func(ctx context.Context) (bool, string, error) {
			var err error
			state, err = t.ask(ctx, f)
			return err == nil && t.reached(state), inState(state), err
		})
		if err != nil {
			return err
		}
		done = append(done, waited{t.text, state, int(f.now().Sub(began).Seconds())})
	}
	return printList(f, waits(), &rpc.List[waited]{Items: done, Total: len(done)})
}

func waits() view.Table[waited] {
	return view.Table[waited]{
		Noun: "target", Name: func(w waited) string { return w.Target },
		Columns: []view.Column[waited]{
			{Title: "TARGET", Cell: func(w waited, _ time.Time) view.Cell { return view.Text(w.Target) }},
			{Title: "STATE", Cell: func(w waited, _ time.Time) view.Cell {
				return view.Cell{Text: w.State, Symbol: view.Check, Tone: view.Good}
			}},
		},
	}
}

// states are those of each kind of target.
func states() map[string][]string {
	return map[string][]string{
		"vpnd":    {"live", "ready"},
		"service": {"ready", "running", "stopped", "disabled", "starting", "unready", "unhealthy", "backoff", "failed", "stopping"},
		"tor":     {"up", "maintenance", "blocked"},
		"lane":    {"up", "maintenance", "blocked", "down", "failed"},
		"user":    {"active", "suspended", "deleting", "deleted"},
		"session": {"online", "offline", "closed"},
	}
}

func parseTarget(s string) (target, error) {
	bad := fault.New(fault.Invalid, "%q is no target with a state", s).
		WithHint("write vpnd=ready, tor=up, service/auth=ready, session/alice=online, lane/vpn=up or user/alice=active")
	at := strings.LastIndexByte(s, '=')
	if at < 0 {
		return target{}, bad
	}
	text, want := s[:at], s[at+1:]
	kind, name, named := strings.Cut(text, "/")
	allowed, known := states()[kind]
	if !known || named != (kind != "vpnd" && kind != "tor") || named && name == "" {
		return target{}, bad
	}
	if !slices.Contains(allowed, want) {
		return target{}, fault.New(fault.Invalid, "%q is no state of %s", want, kind).WithHint("use one of %s", strings.Join(allowed, ", "))
	}
	ask := map[string]func(context.Context, *factory) (string, error){
		"vpnd": func(ctx context.Context, f *factory) (string, error) { return askVpnd(ctx, f) },
		"service": func(ctx context.Context, f *factory) (string, error) {
			v, err := getService(f)(ctx, name)
			return v.State, err
		},
		"tor":  func(ctx context.Context, f *factory) (string, error) { return askLane(ctx, f, string(lanes.Tor)) },
		"lane": func(ctx context.Context, f *factory) (string, error) { return askLane(ctx, f, name) },
		"user": func(ctx context.Context, f *factory) (string, error) {
			u, err := getUser(f)(ctx, name)
			if errors.Is(err, fault.NotFound) {
				return "deleted", nil
			}
			return string(u.Status), err
		},
		"session": func(ctx context.Context, f *factory) (string, error) { return askSession(ctx, f, name) },
	}[kind]
	see := "vpnctl status"
	if text == "tor" || text == "lane/tor" {
		see = "vpnctl tor status"
	}
	return target{text: text, want: want, see: see, ask: ask}, nil
}

// inState is a state as it reads after "is".
func inState(state string) string {
	if state == "maintenance" {
		return "in maintenance"
	}
	return state
}

// reached accepts what is more than was wanted: ready is live, and a process
// without a heartbeat is ready when it runs.
func (t target) reached(state string) bool {
	switch t.want {
	case "live":
		return state == "live" || state == "ready"
	case "ready":
		return state == "ready" || state == "running"
	}
	return state == t.want
}

func askVpnd(ctx context.Context, f *factory) (string, error) {
	s, err := call(ctx, f, control.GetStatus, nil)
	if err != nil {
		return "", err
	}
	if len(notReady(s)) > 0 {
		return "live", nil
	}
	return "ready", nil
}

func askLane(ctx context.Context, f *factory, name string) (string, error) {
	l, err := getLane(f)(ctx, name)
	return l.State, err
}

// askSession looks at one session, or at all of a user who has several: the
// most connected one counts.
func askSession(ctx context.Context, f *factory, name string) (string, error) {
	s, err := getSession(f)(ctx, name)
	switch {
	case err == nil:
		return string(s.State), nil
	case errors.Is(err, fault.NotFound):
		return string(sessions.Closed), nil
	case !errors.Is(err, fault.Conflict) && !errors.Is(err, fault.Invalid):
		return "", err
	}
	l, lerr := call(ctx, f, sessions.List, &sessions.ListRequest{User: name, Limit: 1000})
	if lerr != nil || len(l.Items) == 0 {
		return "", err
	}
	state := sessions.Offline
	for _, v := range l.Items {
		if v.State == sessions.Online {
			state = sessions.Online
		}
	}
	return string(state), nil
}

// until asks again and again; see is the command that shows more. A vpnd that is away may come back; what is
// wrong with the question is told at once.
func (f *factory) until(ctx context.Context, what, see string, ask func(context.Context) (done bool, state string, err error)) error {
	if f.timeout == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultWait)
		defer cancel()
	}
	last := ""
	for {
		one, cancel := context.WithTimeout(ctx, askTime)
		done, state, err := ask(one)
		cancel()
		switch code := fault.CodeOf(err); {
		case ctx.Err() != nil:
		case done:
			return nil
		case err == nil:
			last = "it is " + state
		case code == fault.Unavailable, code == fault.Timeout, code == fault.Unhealthy, code == fault.Throttled:
			last = f.explain(err).Message
		default:
			return err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			if last == "" {
				last = "vpnd did not answer in time"
			}
			return fault.New(fault.Timeout, "%s: %s", what, last).WithHint("'%s' shows why; --timeout waits longer", see)
		case <-time.After(waitPoll):
		}
	}
}

// waitTargets completes the part before the state, and the state.
func waitTargets(ctx context.Context, f *factory) []cobra.Completion {
	out := []cobra.Completion{"vpnd=ready", "vpnd=live", "tor=up", "lane/vpn=up", "lane/tor=blocked"}
	add := func(kind, state string, names []cobra.Completion) {
		for _, n := range names {
			name, _, _ := strings.Cut(n, "\t")
			out = append(out, fmt.Sprintf("%s/%s=%s", kind, name, state))
		}
	}
	add("service", "ready", serviceNames(ctx, f))
	add("session", "online", sessionNames(ctx, f))
	add("user", "active", userNames(ctx, f))
	return out
}
