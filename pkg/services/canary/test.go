package canary

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	api "vpnd/pkg/api/canary"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
)

// Test tries to leak from a lane. An error means that nothing is known.
func (s *Service) Test(ctx context.Context, name lanes.Name) (*api.Result, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r, err := s.test(ctx, name)
	if err != nil {
		return nil, err
	}
	s.conclude(ctx, r)
	return r, nil
}

func (s *Service) test(ctx context.Context, name lanes.Name) (*api.Result, error) {
	start := time.Now()
	counts, err := s.put(ctx, s.public())
	if err != nil {
		return nil, lanesSilent(ctx, err)
	}
	defer s.leave(ctx)
	s.baseline(counts)
	before, err := s.count(ctx, name)
	if err != nil {
		return nil, err
	}
	lane, err := testable(before, name)
	if err != nil {
		return nil, err
	}
	t := newTrial(lane, before.Lanes, before.Addrs[name], serverAddresses(), s.tor, s.pace)
	peer, err := base64.StdEncoding.DecodeString(lane.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("public key of lane %s: %w", name, err)
	}
	local := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(lane.Port))
	if t.tunnel, err = openTunnel(s.key.Bytes(), peer, local, lane.MTU); err != nil {
		return nil, err
	}
	err = t.run(ctx)
	t.tunnel.close()
	if err != nil {
		return nil, err
	}
	after, err := s.count(ctx, name)
	if err != nil {
		return nil, err
	}
	if after.Left[name] < before.Left[name] || after.Reached[name] < before.Reached[name] || after.Repairs < before.Repairs {
		return nil, fault.New(fault.Unavailable, "lanes was started again during the leak test").WithHint("run the test again")
	}
	state := lane.State
	if i := find(after, name); i >= 0 {
		state = after.Lanes[i].State
	}
	r := &api.Result{
		Lane: name, At: start.UTC(), LaneState: state, Sent: t.sent,
		Left: after.Left[name] - before.Left[name], Reached: after.Reached[name] - before.Reached[name],
		Repaired: s.repaired(name, after), Attempts: t.attempts(lane.State, state),
	}
	r.OK = !leaks(r) && r.Repaired == ""
	r.Message = message(r)
	r.TookMs = time.Since(start).Milliseconds()
	return r, nil
}

// count reads the counters of a lane. One that is missing is not zero.
func (s *Service) count(ctx context.Context, name lanes.Name) (*lanes.CanaryCounts, error) {
	c, err := lanes.GetCanary.Call(ctx, s.deps.Lanes, nil)
	if err != nil {
		return nil, lanesSilent(ctx, err)
	}
	_, left := c.Left[name]
	_, reached := c.Reached[name]
	if !left || !reached {
		return nil, fault.New(fault.Unavailable, "lanes does not count the leak test's packets in lane %s", name).WithHint("vpnctl service get lanes")
	}
	return c, nil
}

func lanesSilent(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.Wrap(err, fault.Unavailable, "lanes cannot be asked: %v", err).WithHint("vpnctl service get lanes")
}

func find(c *lanes.CanaryCounts, name lanes.Name) int {
	return slices.IndexFunc(c.Lanes, func(l lanes.Lane) bool { return l.Name == name })
}

// testable gives the lane if packets can be sent through it.
func testable(c *lanes.CanaryCounts, name lanes.Name) (lanes.Lane, error) {
	i := find(c, name)
	if i < 0 {
		return lanes.Lane{}, fault.New(fault.NotFound, "there is no lane %q", name).WithHint("the lanes are vpn and tor")
	}
	l := c.Lanes[i]
	switch {
	case l.State == "down" || l.State == "failed":
		return l, fault.New(fault.Unavailable, "lane %s is %s: there is nothing to test", name, l.State).WithHint("vpnctl lane get %s", name)
	case len(c.Addrs[name]) == 0:
		return l, fault.New(fault.Unavailable, "the leak test has no address in lane %s", name).WithHint("vpnctl service get lanes")
	}
	return l, nil
}

// leaks tells whether something got out, or in.
func leaks(r *api.Result) bool {
	return r.Left > 0 || r.Reached > 0 || slices.ContainsFunc(r.Attempts, func(a api.Attempt) bool { return a.Leaked })
}

func message(r *api.Result) string {
	var found []string
	if r.Left > 0 {
		found = append(found, packets(r.Left)+" left by another interface")
	}
	if r.Reached > 0 {
		found = append(found, packets(r.Reached)+" reached services of the host")
	}
	for _, a := range r.Attempts {
		if a.Leaked {
			found = append(found, a.Kind+" over "+a.Family+" was answered")
		}
	}
	if r.Repaired != "" {
		found = append(found, "the rules had been changed and were put right: "+r.Repaired)
	}
	if len(found) > 0 {
		return strings.Join(found, "; ")
	}
	return fmt.Sprintf("nothing leaked: none of %s got where it must not", packets(uint64(r.Sent)))
}

func packets(n uint64) string {
	if n == 1 {
		return "1 packet"
	}
	return strconv.FormatUint(n, 10) + " packets"
}

// conclude blocks lane tor if it leaks and that is configured, keeps the
// result, and tells of it.
func (s *Service) conclude(ctx context.Context, r *api.Result) {
	if s.cfg.Block && r.Lane == lanes.Tor && leaks(r) {
		if err := s.block(ctx, r.Message); err != nil {
			s.deps.Log.Error("lane tor leaks and could not be blocked", "error", err)
			r.Message += "; lane tor could not be blocked"
		} else {
			r.Message += "; lane tor was taken down"
		}
	}
	leaked := s.remember(*r)
	e := events.Event{Message: r.Message, Data: map[string]string{
		"lane": string(r.Lane), "state": r.LaneState, "sent": strconv.Itoa(r.Sent),
		"left": strconv.FormatUint(r.Left, 10), "reached": strconv.FormatUint(r.Reached, 10),
	}}
	if r.Repaired != "" {
		e.Data["repaired"] = r.Repaired
	}
	switch {
	case leaks(r):
		s.deps.Log.Error("leak test found something", "lane", r.Lane, "message", r.Message, "left", r.Left, "reached", r.Reached)
		e.Type = "leak.found"
	case !r.OK:
		s.deps.Log.Error("leak test found repaired rules", "lane", r.Lane, "message", r.Message)
		e.Type = "leaktest.rules_changed"
	case leaked:
		s.deps.Log.Info("leak test is ok again", "lane", r.Lane)
		e.Type = "leak.cleared"
	default:
		s.deps.Log.Info("leak test ok", "lane", r.Lane, "sent", r.Sent, "took_ms", r.TookMs)
		return
	}
	s.deps.Publish(e)
}

// block takes lane tor down, also when whoever asked for the test has gone.
func (s *Service) block(ctx context.Context, why string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	r := &tor.WishRequest{}
	reason := []rune("leak test failed: " + why)
	r.Body.Wish, r.Body.Reason = tor.WishDown, string(reason[:min(len(reason), 300)])
	_, err := tor.SetWish.Call(ctx, s.deps.Tor, r)
	return err
}
