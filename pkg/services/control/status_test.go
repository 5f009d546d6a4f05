//go:build linux

package control_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/api/canary"
	api "vpnd/pkg/api/control"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/logs"
	"vpnd/pkg/api/tor"
)

func TestStatusTellsOfLaneTorAndLeaks(t *testing.T) {
	w := newWorld(t)
	lane := func(state, reason string) []lanes.Lane {
		return []lanes.Lane{{Name: lanes.Tor, State: state, Reason: reason}}
	}
	test := func(lane lanes.Name, ok bool, age time.Duration) canary.Result {
		return canary.Result{Lane: lane, OK: ok, At: time.Now().Add(-age), Message: "2 packets left"}
	}
	const down = "the operator took the lane down: new disks"
	failed := []api.Problem{{What: "leak test of lane tor failed 3h ago: 2 packets left", Hint: "vpnctl leaktest list"}}
	for _, tc := range []struct {
		name   string
		lanes  []lanes.Lane
		tor    tor.Status
		leaks  []canary.Result
		silent []string
		note   string
		want   []api.Problem
	}{
		{name: "up", lanes: lane("up", ""), tor: tor.Status{Wish: tor.WishUp}},
		{
			name: "maintenance", lanes: lane("maintenance", "back at noon"), tor: tor.Status{Wish: tor.WishMaintenance}, note: "back at noon",
			want: []api.Problem{{What: "lane tor is in maintenance: back at noon", Hint: "vpnctl tor status"}},
		},
		{name: "taken down", lanes: lane("blocked", down), tor: tor.Status{Wish: tor.WishDown}, note: down},
		{name: "taken down, lanes says no reason", lanes: lane("blocked", ""), tor: tor.Status{Wish: tor.WishDown, Reason: down}, note: down},
		{
			name: "blocked by itself", lanes: lane("blocked", "nobody asked"), tor: tor.Status{Wish: tor.WishUp}, note: "nobody asked",
			want: []api.Problem{{What: "lane tor is blocked: nobody asked", Hint: "vpnctl tor status"}},
		},
		{
			name: "blocked, and tor is silent", lanes: lane("blocked", "nobody asked"), silent: []string{"tor", "canary"}, note: "nobody asked",
			want: []api.Problem{{What: "lane tor is blocked: nobody asked", Hint: "vpnctl tor status"}},
		},
		{name: "up, and tor is silent", lanes: lane("up", ""), silent: []string{"tor", "canary"}},
		{
			name: "failed interface", lanes: lane("failed", "no device"), note: "no device",
			want: []api.Problem{{What: "lane tor is failed: no device", Hint: "vpnctl service get lanes"}},
		},
		{name: "leak", lanes: lane("up", ""), want: failed, leaks: []canary.Result{
			test(lanes.VPN, true, time.Minute), test(lanes.Tor, false, 3*time.Hour+time.Minute), test(lanes.Tor, true, 4*time.Hour),
		}},
		{name: "leak of before", lanes: lane("up", ""), leaks: []canary.Result{
			test(lanes.Tor, true, time.Minute), test(lanes.Tor, false, time.Hour),
		}},
	} {
		w.fake.mu.Lock()
		w.fake.lanes, w.fake.tor, w.fake.leaks = tc.lanes, tc.tor, tc.leaks
		w.fake.down = map[string]bool{}
		for _, s := range tc.silent {
			w.fake.down[s] = true
		}
		w.fake.mu.Unlock()
		s, err := api.GetStatus.Call(t.Context(), w.conn(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(tc.want) == 0 {
			tc.want = []api.Problem{}
		}
		if d := cmp.Diff(tc.want, s.Problems); d != "" || s.Healthy != (len(tc.want) == 0) {
			t.Errorf("%s: healthy %v\n%s", tc.name, s.Healthy, d)
		}
		if len(s.Lanes) != 1 || s.Lanes[0].Reason != tc.note {
			t.Errorf("%s: lanes %+v", tc.name, s.Lanes)
		}
	}
}

func TestStatusTellsOfLogs(t *testing.T) {
	w := newWorld(t)
	status := func() *api.Status {
		t.Helper()
		s, err := api.GetStatus.Call(t.Context(), w.conn(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := status(); !s.Healthy {
		t.Errorf("nothing is wrong: %+v", s.Problems)
	}
	w.fake.mu.Lock()
	w.fake.logs.Problems = []logs.Problem{{What: "lines are not taken in: the disk is full", Hint: "free space"}, {What: "/var/log/x cannot be read: permission denied", Hint: "let it"}}
	w.fake.mu.Unlock()
	want := []api.Problem{{What: "logs: lines are not taken in: the disk is full", Hint: "free space"}, {What: "logs: /var/log/x cannot be read: permission denied", Hint: "let it"}}
	if s := status(); s.Healthy || !cmp.Equal(s.Problems, want) {
		t.Errorf("healthy %v, %+v", s.Healthy, s.Problems)
	}
	// Who stopped it knows that it does not answer.
	w.fake.mu.Lock()
	w.fake.down["logs"] = true
	w.fake.mu.Unlock()
	if s := status(); !s.Healthy {
		t.Errorf("without logs: %+v", s.Problems)
	}
}
