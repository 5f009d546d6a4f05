package fakevpnd

import (
	"slices"
	"time"

	"vpnd/pkg/api/canary"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/rpc"
)

// leakTest is a test in which nothing leaked.
func leakTest(lane lanes.Name, at time.Time) canary.Result {
	r := canary.Result{Lane: lane, OK: true, At: at, TookMs: 812, LaneState: "up", Message: "nothing leaked: none of 24 packets got where it must not"}
	for _, family := range []string{"ipv4", "ipv6"} {
		r.Attempts = append(r.Attempts,
			canary.Attempt{Kind: "tcp", Family: family, Sent: 3, Answer: "reply"},
			canary.Attempt{Kind: "udp443", Family: family, Sent: 1, Answer: "refused"},
			canary.Attempt{Kind: "gateway-tcp", Family: family, Sent: 4, Answer: "reset"},
			canary.Attempt{Kind: "fragment", Family: family, Sent: 4, Answer: "refused, nothing"})
	}
	for _, a := range r.Attempts {
		r.Sent += a.Sent
	}
	return r
}

// leakTests are the last results when a world is new, the newest first.
func leakTests() []canary.Result {
	failed := leakTest(lanes.Tor, ago(26*time.Hour))
	failed.OK, failed.Left, failed.Repaired = false, 2, "rule 3 of c_gate was missing"
	failed.Message = "2 packets left by another interface; the rules had been changed and were put right: rule 3 of c_gate was missing"
	failed.Attempts[1].Answer, failed.Attempts[1].Leaked = "reply", true
	return []canary.Result{leakTest(lanes.VPN, ago(50*time.Minute)), leakTest(lanes.Tor, ago(51*time.Minute)), failed}
}

func (w *World) handleLeakTests(s *rpc.Server) {
	on(w, s, canary.Run, func(r *canary.RunRequest) (*canary.Result, error) {
		res := leakTest(r.Body.Lane, Now())
		if w.Leaking {
			last := leakTests()
			res = last[len(last)-1]
			res.Lane, res.At = r.Body.Lane, Now()
		}
		w.LeakTests = slices.Insert(w.LeakTests, 0, res)
		return &res, nil
	})
	on(w, s, canary.Last, func(*struct{}) (*rpc.List[canary.Result], error) {
		return &rpc.List[canary.Result]{Items: slices.Clone(w.LeakTests), Total: len(w.LeakTests)}, nil
	})
}
