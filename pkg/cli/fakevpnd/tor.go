package fakevpnd

import (
	"cmp"

	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/rpc"
)

// Bootstrapped sets how far tor has come, and the lane accordingly. Call it
// in Do.
func (w *World) Bootstrapped(b tor.Bootstrap) {
	w.Tor.Bootstrap = b
	w.settleTor("")
}

// settleTor puts the lane where wish and process say.
func (w *World) settleTor(reason string) {
	state, why := "up", ""
	t := &w.Tor
	t.Hint = ""
	switch {
	case t.Wish == tor.WishDown:
		state, why = "blocked", cmp.Or(reason, "down by an operator")
	case t.Wish == tor.WishMaintenance:
		state, why = "maintenance", cmp.Or(reason, "maintenance by an operator")
	case t.WishProcess == "stop":
		state, why, t.Hint = "maintenance", "tor is stopped", "vpnctl tor start"
	case t.Process != tor.ProcessRunning:
		state, why = "maintenance", "tor is "+string(t.Process)
	case t.Bootstrap.Percent < 100:
		state, why, t.Hint = "maintenance", "tor is not bootstrapped yet", "vpnctl tor bootstrap"
	}
	for i := range w.Lanes {
		if l := &w.Lanes[i]; l.Name == lanes.Tor && (l.State != state || l.Reason != why) {
			l.State, l.Reason, l.Since = state, why, Now()
		}
	}
}

func (w *World) torStatus() *tor.Status {
	t := w.Tor
	for _, l := range w.Lanes {
		if l.Name == lanes.Tor {
			t.Lane, t.Reason, t.Since = l.State, l.Reason, l.Since
		}
	}
	t.Circuits, t.Streams = len(w.TorNet.Circuits), len(w.TorNet.Streams)
	t.Exit, t.Exits = nil, 0
	for _, c := range w.TorNet.Exits {
		if c.User == "" {
			t.Exit = &c
		} else {
			t.Exits++
		}
	}
	return &t
}

func (w *World) handleTor(s *rpc.Server) {
	on(w, s, tor.GetStatus, func(*struct{}) (*tor.Status, error) { return w.torStatus(), nil })
	on(w, s, tor.SetWish, func(r *tor.WishRequest) (*tor.Status, error) {
		w.Tor.Wish, w.Tor.Message = r.Body.Wish, r.Body.Message
		w.settleTor(r.Body.Reason)
		return w.torStatus(), nil
	})
	on(w, s, tor.Start, func(*struct{}) (*tor.Status, error) {
		w.Tor.WishProcess = "start"
		if w.Tor.Process == tor.ProcessStopped {
			w.Tor.Process, w.Tor.PID, w.Tor.StartedAt, w.Tor.Bootstrap = tor.ProcessRunning, 4712, ptr(Now()), tor.Bootstrap{Percent: 5, Tag: "conn", Summary: "Connecting to a relay"}
		}
		w.settleTor("")
		return w.torStatus(), nil
	})
	on(w, s, tor.Stop, func(*struct{}) (*tor.Status, error) {
		w.Tor.WishProcess, w.Tor.Process, w.Tor.PID, w.Tor.StartedAt, w.Tor.Bootstrap = "stop", tor.ProcessStopped, 0, nil, tor.Bootstrap{}
		w.Tor.EnoughDirInfo, w.Tor.Circuit, w.Tor.NetworkLive, w.Tor.Probe, w.Tor.RxBytes, w.Tor.TxBytes = false, false, false, tor.Probe{}, 0, 0
		w.settleTor("")
		return w.torStatus(), nil
	})
}
