package sessions_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/services/sessions"
)

// chaos decides the fate of calls. It may be used concurrently.
type chaos struct {
	mu  sync.Mutex
	rnd *rand.Rand
	bad float64 // share of calls that do not go well
}

func (c *chaos) fate(string) outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.rnd.Float64() < c.bad:
		return []outcome{refused, refused, lost, lost, hung, doneHung}[c.rnd.IntN(6)]
	case c.rnd.IntN(3) == 0:
		return slow
	}
	return answered
}

// customer is a user with two devices, who does one thing at a time and
// remembers what was acknowledged.
type customer struct {
	user    id.User
	devices [2]id.Device
	rnd     *rand.Rand

	// by device: the session that must be open, "" when none may be, and not
	// there at all when a call failed and either is possible.
	must map[id.Device]id.Session
	keys map[id.Device]string
}

func (c *customer) step(w *world, m *sessions.Manager) {
	dev := c.devices[c.rnd.IntN(2)]
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	if c.rnd.IntN(10) == 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.rnd.IntN(30))*time.Millisecond) // goes away
		defer cancel()
	}
	unknown := func(devs ...id.Device) {
		for _, d := range devs {
			delete(c.must, d)
		}
	}
	noPeer := func(what string, devs ...id.Device) {
		for _, p := range w.peers() {
			for _, d := range devs {
				if p.Device == d {
					w.t.Errorf("%s of %s was acknowledged, and its peer is there", what, d)
				}
			}
		}
	}
	switch n := c.rnd.IntN(20); {
	case n < 9:
		key := c.keys[dev]
		if key == "" || c.rnd.IntN(3) == 0 {
			key = newKey()
		}
		got, err := m.Open(ctx, request(c.user, dev, key))
		if err != nil {
			if errors.Is(err, fault.Internal) || errors.Is(err, fault.Conflict) {
				w.t.Errorf("open %s: %v", dev, err)
			}
			unknown(dev)
			return
		}
		if want, ok := c.must[dev]; ok && want != "" && key == c.keys[dev] && got.SessionID != want {
			w.t.Errorf("open %s again with the same key: %s became %s", dev, want, got.SessionID)
		}
		c.keys[dev], c.must[dev] = key, got.SessionID
		if p, ok := w.peers()[key]; !ok || p.Device != dev {
			w.t.Errorf("the session of %s was acknowledged, and there is no peer", dev)
		}
	case n < 12:
		forget := c.rnd.IntN(3) == 0
		closed, err := m.CloseDevice(ctx, dev, api.ByUser, forget)
		if err != nil {
			unknown(dev)
			return
		}
		if want, ok := c.must[dev]; ok && (closed == nil) != (want == "") {
			w.t.Errorf("close %s: got %v, want %q", dev, closed, want)
		}
		c.must[dev] = ""
		noPeer("the end", dev)
	case n < 14:
		w.setStatus(c.user, users.Suspended)
		_, err := m.CloseUser(ctx, c.user, api.UserSuspended, false)
		if err != nil {
			unknown(c.devices[:]...)
		} else {
			c.must[c.devices[0]], c.must[c.devices[1]] = "", ""
			noPeer("suspension", c.devices[:]...)
			if _, err := m.Open(ctx, request(c.user, dev, newKey())); err == nil {
				w.t.Errorf("%s connects although suspended", dev)
			}
		}
		w.setStatus(c.user, users.Active)
	case n < 16:
		r := m.Beat(ctx, api.BeatItem{User: c.user, Device: dev})
		if want, ok := c.must[dev]; ok && (r.Refused == "") != (want != "") {
			w.t.Errorf("heartbeat of %s: %+v, want %q", dev, r, want)
		}
	case n < 18:
		w.traffic(c.keys[dev], 100, 1)
	default:
		time.Sleep(time.Duration(c.rnd.IntN(8000)) * time.Millisecond)
	}
}

// TestRandomOperationsFailuresAndRestarts lets customers, failing siblings and
// dying processes loose on each other. Every acknowledged result must hold at
// once and in the end, and in the end sessions, peers and leases must agree.
func TestRandomOperationsFailuresAndRestarts(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		for _, bad := range []float64{0, 0.15, 0.5} {
			t.Run(fmt.Sprintf("seed %d, %.0f %% bad", seed, 100*bad), func(t *testing.T) {
				inBubble(t, func(w *world) { randomRun(w, seed, bad) })
			})
		}
	}
}

func randomRun(w *world, seed uint64, bad float64) {
	var customers []*customer
	for i := range 5 {
		c := &customer{
			user: id.User(fmt.Sprint("u", i)), rnd: rand.New(rand.NewPCG(seed, uint64(i))),
			must: map[id.Device]id.Session{}, keys: map[id.Device]string{},
		}
		for j := range c.devices {
			c.devices[j] = id.Device(fmt.Sprint("dev", i, ".", j))
			c.must[c.devices[j]] = ""
		}
		w.addUser(c.user, c.devices[:]...)
		customers = append(customers, c)
	}
	rnd := rand.New(rand.NewPCG(seed, 99))
	ch := &chaos{rnd: rand.New(rand.NewPCG(seed, 100)), bad: bad}
	// A process lives until everybody in it has done some steps, and ends then or
	// in the middle of a call.
	for range 6 {
		w.setFate(ch.fate)
		m := w.Manager
		quit := make(chan struct{})
		var all sync.WaitGroup
		for _, c := range customers {
			all.Go(func() {
				for range 12 {
					c.step(w, m)
					select {
					case <-quit:
						return
					default:
					}
				}
			})
		}
		restarts, pause := rnd.IntN(3), time.Duration(rnd.IntN(5000))*time.Millisecond
		all.Go(func() {
			for range restarts {
				time.Sleep(pause)
				w.restartLanes()
			}
		})
		if rnd.IntN(2) == 0 {
			time.Sleep(time.Duration(rnd.IntN(20_000)) * time.Millisecond)
			close(quit)
			w.crash()
			all.Wait()
			w.start()
		} else {
			all.Wait()
			if rnd.IntN(2) == 0 {
				w.stop()
				w.start()
			}
		}
	}
	w.setFate(nil)
	w.settle()
	w.agrees()
	open := map[id.Device]id.Session{}
	for _, s := range w.listed() {
		open[s.Device] = s.ID
	}
	for _, c := range customers {
		for dev, want := range c.must {
			if open[dev] != want {
				w.t.Errorf("%s has session %q, acknowledged was %q", dev, open[dev], want)
			}
		}
	}
}
