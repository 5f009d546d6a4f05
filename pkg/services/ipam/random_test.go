package ipam_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/ipam"
	"vpnd/pkg/fault"
	"vpnd/pkg/services/ipam"
)

// TestRandomOperationsAgainstAnOracle compares with two maps: who holds what,
// and until when an address rests.
func TestRandomOperationsAgainstAnOracle(t *testing.T) {
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t, narrow())
		held := map[id.Device]api.Lease{}
		rests := map[netip.Addr]time.Time{}
		for step := range 300 {
			dev := id.Device(fmt.Sprint("d", rnd.IntN(9)))
			switch n := rnd.IntN(20); {
			case n < 9:
				got, err := w.Acquire(t.Context(), dev, owner(dev))
				if want, ok := held[dev]; ok {
					if err != nil || !cmp.Equal(got, want, addrEqual) {
						t.Fatalf("seed %d step %d: %s: got %+v %v, want %+v", seed, step, dev, got, err, want)
					}
					continue
				}
				free := 4 - len(held)
				for a, until := range rests {
					if until.After(w.now) && w.cfg.Prefixes[0].Contains(a) {
						free--
					}
				}
				if (err == nil) != (free > 0) || (err != nil && !errors.Is(err, fault.Exhausted)) {
					t.Fatalf("seed %d step %d: %d free, got %v", seed, step, free, err)
				}
				if err != nil {
					continue
				}
				for i, a := range addrs(got) {
					if rests[a].After(w.now) {
						t.Fatalf("seed %d step %d: %s rests until %s", seed, step, a, rests[a])
					}
					for other, l := range held {
						if addrs(l)[i] == a {
							t.Fatalf("seed %d step %d: %s is held by %s", seed, step, a, other)
						}
					}
				}
				held[dev] = got
			case n < 15:
				w.release(dev)
				for _, a := range addrs(held[dev]) {
					rests[a] = w.now.Add(quarantine)
				}
				delete(held, dev)
			case n < 17:
				w.now = w.now.Add(time.Duration(rnd.Int64N(int64(quarantine))))
			case n < 18:
				if err := w.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
			case n < 19:
				w.restart()
			default:
				if d := cmp.Diff(held, w.all(), addrEqual); d != "" {
					t.Fatalf("seed %d step %d: %s", seed, step, d)
				}
			}
		}
		_ = w.db.Close()
	}
}

const playChild = "play-ipam" // FOLDER SEED: random calls until killed

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == playChild {
		if err := play(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// wide has room for all devices of the killed process, and for those that rest.
func wide() ipam.Config {
	c := config("10.8.0.0/16", "fd08::/64", "10.9.0.0/16", "fd09::/64")
	c.Quarantine = time.Hour
	return c
}

// play acquires and releases, and says what it is about to do and what was
// acknowledged, one line each.
func play(dir, seedText string) error {
	seed, err := strconv.ParseUint(seedText, 10, 64)
	if err != nil {
		return err
	}
	w := &world{dir: dir, cfg: wide(), now: time.Now()}
	if err := w.tryRestart(); err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	for g := range 4 {
		go func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(g)))
			for {
				dev := id.Device(fmt.Sprint("d", g, ".", rnd.IntN(6)))
				if rnd.IntN(2) == 0 {
					say("releasing %s", dev)
					if err := w.Release(context.Background(), dev); err != nil {
						say("error %v", err)
					}
					say("released %s", dev)
					continue
				}
				say("acquiring %s", dev)
				l, err := w.Acquire(context.Background(), dev, owner(dev))
				if err != nil {
					say("error %v", err)
				}
				say("acquired %s %s %s %s %s", dev, l.VPN.IPv4, l.VPN.IPv6, l.Tor.IPv4, l.Tor.IPv6)
			}
		}()
	}
	_, err = io.Copy(io.Discard, os.Stdin) // ends with the test, should it forget to kill
	return err
}

func TestKilledProcessLosesNoLeaseAndGivesNoneTwice(t *testing.T) {
	w := newWorld(t, wide())
	_ = w.db.Close()
	held := map[id.Device]string{}    // acknowledged
	unknown := map[id.Device]string{} // what was under way when it was killed
	rested := map[string]id.Device{}  // addresses given back; none may come again within the hour
	for round := range 12 {
		cmd := exec.Command(os.Args[0], playChild, w.dir, strconv.Itoa(round))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == 40+7*round {
				_ = cmd.Process.Kill()
			}
			f := strings.Fields(lines.Text())
			if len(f) < 2 {
				break // cut off
			}
			dev := id.Device(f[1])
			switch f[0] {
			case "error":
				t.Errorf("round %d: %s", round, lines.Text())
			case "acquiring", "releasing":
				unknown[dev] = f[0]
			case "acquired":
				if len(f) < 6 {
					continue // cut off: not acknowledged
				}
				delete(unknown, dev)
				got := strings.Join(f[2:], " ")
				if want, ok := held[dev]; ok && want != got {
					t.Errorf("round %d: %s: lease %s became %s", round, dev, want, got)
				}
				for _, a := range f[2:] {
					if by, ok := rested[a]; ok {
						t.Errorf("round %d: %s was given to %s while it rests after %s", round, a, dev, by)
					}
				}
				held[dev] = got
			case "released":
				delete(unknown, dev)
				for a := range strings.FieldsSeq(held[dev]) {
					rested[a] = dev
				}
				delete(held, dev)
			}
		}
		_ = in.Close()
		_ = cmd.Wait()

		w.db = nil
		w.now = time.Now()
		w.restart()
		got := map[id.Device]string{}
		for dev, l := range w.all() {
			got[dev] = fmt.Sprint(l.VPN.IPv4, l.VPN.IPv6, l.Tor.IPv4, l.Tor.IPv6)
		}
		for dev, doing := range unknown { // may have happened or not
			switch {
			case doing == "releasing" && got[dev] == "":
				for a := range strings.FieldsSeq(held[dev]) {
					rested[a] = dev
				}
				delete(held, dev)
			case doing == "acquiring" && held[dev] == "" && got[dev] != "":
				held[dev] = got[dev]
			}
		}
		clear(unknown)
		if d := cmp.Diff(held, got); d != "" {
			t.Fatalf("round %d: leases (-acknowledged +kept): %s", round, d)
		}
		w.check()
		_ = w.db.Close()
	}
}
