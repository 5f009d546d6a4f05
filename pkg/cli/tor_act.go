package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

// torActOptions are those of the commands that change lane tor.
type torActOptions struct {
	dryRun  bool
	wait    bool
	message string
	reason  string
	consent consent
}

// torAct is what is to be done to lane tor.
type torAct struct {
	verb     string
	question string // to be agreed to first
	up       bool   // the lane should come up afterwards
	needed   func(tor.Status) bool
	do       func(ctx context.Context) (*tor.Status, error)
}

func reasonFlag(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "why, for 'vpnctl tor status'")
}

func torUpFlags(cmd *cobra.Command, o *torActOptions) {
	dryRunFlag(cmd, &o.dryRun)
	cmd.Flags().BoolVar(&o.wait, "wait", false, "wait until the lane is up, as long as --timeout says (default 60s)")
}

func torDownFlags(cmd *cobra.Command, o *torActOptions) {
	dryRunFlag(cmd, &o.dryRun)
	reasonFlag(cmd, &o.reason)
	o.consent.flags(cmd, false)
}

// wishTor is an act that sets the wish for the lane.
func wishTor(f *factory, o *torActOptions, wish tor.Wish, act torAct) torAct {
	act.needed = func(s tor.Status) bool { return s.Wish != wish || o.message != "" && s.Message != o.message }
	act.do = func(ctx context.Context) (*tor.Status, error) {
		r := &tor.WishRequest{}
		r.Body.Wish, r.Body.Message, r.Body.Reason = wish, o.message, o.reason
		return call(ctx, f, tor.SetWish, r)
	}
	return act
}

// processTor is an act that starts or stops the process.
func processTor(f *factory, op rpc.Op[struct{}, tor.Status], wish string, act torAct) torAct {
	act.needed = func(s tor.Status) bool { return s.WishProcess != wish }
	act.do = func(ctx context.Context) (*tor.Status, error) { return call(ctx, f, op, nil) }
	return act
}

func actOnTor(ctx context.Context, f *factory, o *torActOptions, act torAct) error {
	if o.dryRun {
		s, err := act.plan(ctx, f)
		if err != nil {
			return err
		}
		return f.printPlan([]step{s}, nil)
	}
	if act.question != "" {
		if err := f.agree(o.consent, question{what: act.question}); err != nil {
			return err
		}
	}
	last, err := act.run(ctx, f, o.wait)
	if err != nil {
		return err
	}
	if err := printChanged(f, view.Tor(), 1, []tor.Status{last}); err != nil {
		return err
	}
	return act.judge(f, last)
}

// plan is what would be done.
func (act torAct) plan(ctx context.Context, f *factory) (step, error) {
	s, err := getTor(ctx, f)
	if err != nil {
		return step{}, err
	}
	out := step{Action: act.verb, Kind: "lane", Name: "tor", Change: act.needed(s), Detail: "is " + inWords(s)}
	if out.Change {
		out.Detail = s.Lane + " → " + act.then(s)
	}
	return out, nil
}

// then is what the lane is in afterwards.
func (act torAct) then(s tor.Status) string {
	switch {
	case act.verb == "down", act.verb == "start" && s.Wish == tor.WishDown, act.verb == "stop" && s.Wish == tor.WishDown:
		return "blocked"
	case !act.up, act.verb == "start" && s.Wish == tor.WishMaintenance:
		return "maintenance"
	case act.verb == "up" && s.WishProcess == "stop":
		return "maintenance: tor is stopped"
	}
	return "up, as soon as Tor works"
}

// run does it, and waits for the lane where that is wanted.
func (act torAct) run(ctx context.Context, f *factory, wait bool) (tor.Status, error) {
	s, err := act.do(ctx)
	if err != nil {
		return tor.Status{}, err
	}
	if act.up && wait && s.Lane != "up" {
		return waitForTor(ctx, f)
	}
	return *s, nil
}

// judge tells what is left to do for the lane to come up.
func (act torAct) judge(f *factory, last tor.Status) error {
	if !act.up || last.Lane == "up" {
		return nil
	}
	if last.Process == tor.ProcessMissing || last.Process == tor.ProcessFailed {
		return fault.New(fault.Unhealthy, "lane tor is %s", inWords(last)).WithHint("%s", hintOr(last, "vpnctl tor status"))
	}
	f.hint("%s", hintOr(last, "'vpnctl tor bootstrap' follows how far tor comes"))
	return nil
}

func hintOr(s tor.Status, otherwise string) string {
	if s.Hint != "" {
		return s.Hint
	}
	return otherwise
}

// inWords is the state of the lane with its reason.
func inWords(s tor.Status) string {
	return strings.TrimSuffix(inState(s.Lane)+": "+s.Reason, ": ")
}

// waitForTor polls until the lane is up. What only an operator can change is
// not waited for.
func waitForTor(ctx context.Context, f *factory) (tor.Status, error) {
	var last tor.Status
	err := f.until(ctx, "lane tor is not up", "vpnctl tor status", func(ctx context.Context) (bool, string, error) {
		s, err := getTor(ctx, f)
		if err != nil {
			return false, "", err
		}
		last = s
		switch {
		case s.Wish != tor.WishUp:
			return false, "", fault.New(fault.Conflict, "lane tor does not come up: %s is wished", s.Wish).WithHint("vpnctl tor up")
		case s.WishProcess == "stop":
			return false, "", torIsStopped()
		}
		return s.Lane == "up", inWords(s), nil
	})
	return last, err
}

func torIsStopped() error {
	return fault.New(fault.Conflict, "tor is stopped").WithHint("vpnctl tor start")
}
