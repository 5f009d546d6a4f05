//go:build linux

package lanes_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "vpnd/pkg/api/lanes"
	"vpnd/pkg/services/lanes"
)

// noted tells whether the endpoints on the disk name these bits.
func (s *server) noted(bits ...string) bool {
	text, err := os.ReadFile(filepath.Join(s.role.StateDir, "endpoints.json"))
	if err != nil {
		return false
	}
	for _, b := range bits {
		if !strings.Contains(string(text), b) {
			return false
		}
	}
	return true
}

// A device whose endpoint was not written down goes unheard for 15 s when
// everything is killed at once, so nobody has to ask for it to be written.
func TestEndpointsAreWrittenDownUnasked(t *testing.T) {
	s := newServer(t)
	s.role.Compare = time.Hour // nor does the comparison learn them
	s.run()
	c := s.newClient()
	_, err := s.sync(c.peer)
	must(t, err)
	p := c.ping()
	p.flows(10)
	start := time.Now()
	eventually(t, "the endpoint", func() bool { return s.noted(c.peer.PublicKey, `"198.18.2.2:40000"`, `"live":true`) })
	t.Logf("written down %s after the first answers", time.Since(start))

	pid := s.daemon("wgl0")
	s.kill()
	daemon, err := os.FindProcess(pid)
	must(t, err, daemon.Kill())
	start = time.Now()
	s.run()
	_, err = s.sync(c.peer)
	must(t, err)
	p.flows(10)
	t.Logf("heard again %s after everything was killed", time.Since(start))

	_, err = s.remove(c.peer)
	must(t, err)
	eventually(t, "the device to be forgotten", func() bool { return !s.noted(c.peer.PublicKey) })
	if got := s.keys(api.VPN); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestLooksAtEndpointsAreRare(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		0: 500 * time.Millisecond, time.Millisecond: 500 * time.Millisecond,
		24 * time.Millisecond: 1200 * time.Millisecond, time.Minute: 5 * time.Second,
	} {
		if got := lanes.LookPause(took); got != want {
			t.Errorf("after a look of %s: a rest of %s, want %s", took, got, want)
		}
	}
}
