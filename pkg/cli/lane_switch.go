package cli

import (
	"context"
	"slices"
	"strings"

	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
	"vpnd/pkg/view"
)

// laneSwitch is a lane brought up or taken down: each lane in its own way.
type laneSwitch struct {
	up   bool
	verb string
	risk risk   // of doing it to lane vpn
	tor  torAct // for lane tor
}

func switchLanes(ctx context.Context, f *factory, o *torActOptions, args []string, sw laneSwitch) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fault.New(fault.Invalid, "which lane? none was named")
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	plan, err := each(ctx, names, func(ctx context.Context, name string) (step, error) { return sw.plan(ctx, f, name) })
	if o.dryRun {
		return f.printPlan(plan, err)
	}
	if err != nil {
		return err
	}
	if err := f.agreeToLanes(o.consent, plan, sw); err != nil {
		return err
	}
	var last tor.Status
	changed, err := each(ctx, names, func(ctx context.Context, name string) (lanes.Lane, error) {
		if name == string(lanes.VPN) {
			return sw.switchVPN(ctx, f, o.wait)
		}
		if last, err = sw.tor.run(ctx, f, o.wait); err != nil {
			return lanes.Lane{}, err
		}
		return getLane(f)(ctx, name)
	})
	if perr := printChanged(f, view.Lanes(), len(names), changed); perr != nil {
		return perr
	}
	if err == nil && slices.Contains(names, string(lanes.Tor)) {
		err = sw.tor.judge(f, last)
	}
	return err
}

func (sw laneSwitch) plan(ctx context.Context, f *factory, name string) (step, error) {
	if name == string(lanes.Tor) {
		return sw.tor.plan(ctx, f)
	}
	l, err := getLane(f)(ctx, name)
	if err != nil {
		return step{}, err
	}
	s := step{Action: sw.verb, Kind: "lane", Name: name, Change: (l.State == "down") == sw.up, Detail: "is " + strings.TrimSuffix(l.State+": "+l.Reason, ": ")}
	if s.Change {
		s.Detail = l.State + " → " + sw.verb
		s.Risks = []string{string(sw.risk)}
	}
	return s, nil
}

// agreeToLanes asks once for all lanes.
func (f *factory) agreeToLanes(c consent, plan []step, sw laneSwitch) error {
	means := map[bool]string{true: "lets devices out to the internet with this host's address", false: "cuts what devices have open in lane vpn"}
	q := question{risks: map[risk]string{}}
	var names []string
	for _, s := range plan {
		names = append(names, s.Name)
		if s.Name == string(lanes.Tor) {
			q.what = sw.tor.question
		}
		if len(s.Risks) > 0 {
			q.risks[sw.risk], q.typed = means[sw.up], s.Name
		}
	}
	if len(q.risks) > 0 {
		q.what = "bring " + several("lane", names) + " " + sw.verb
	}
	if q.what == "" {
		return nil
	}
	return f.agree(c, q)
}

func (sw laneSwitch) switchVPN(ctx context.Context, f *factory, wait bool) (lanes.Lane, error) {
	r := &lanes.SwitchRequest{}
	r.Body.Up = sw.up
	l, err := call(ctx, f, lanes.Switch, r)
	if err != nil {
		return lanes.Lane{}, err
	}
	if !wait || l.State == "up" {
		return *l, nil
	}
	last := *l
	err = f.until(ctx, "lane vpn is not up", "vpnctl lane get vpn", func(ctx context.Context) (bool, string, error) {
		v, err := getLane(f)(ctx, string(lanes.VPN))
		last = v
		return err == nil && v.State == "up", strings.TrimSuffix(v.State+": "+v.Reason, ": "), err
	})
	return last, err
}
