package wgdev_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vpnd/pkg/wgdev"
)

func seen(k byte, endpoint string, ago time.Duration) wgdev.PeerState {
	s := wgdev.PeerState{Peer: wgdev.Peer{PublicKey: wgdev.Key{9, k}}}
	if endpoint != "" {
		s.Endpoint = netip.MustParseAddrPort(endpoint)
	}
	if ago >= 0 {
		s.LastHandshake = time.Now().Add(-ago)
	}
	return s
}

func TestEndpointBookRestoresWhoHadASession(t *testing.T) {
	file := filepath.Join(t.TempDir(), "endpoints.json")
	book := wgdev.NewEndpointBook()
	must(t, book.Load(file)) // missing is empty
	book.Observe([]wgdev.PeerState{
		seen(1, "198.18.0.1:1", time.Second),
		seen(2, "[fd00::2]:2", time.Hour),
		seen(3, "", -1),
		seen(4, "198.18.0.4:4", time.Second),
		seen(5, "198.18.0.5:5", time.Second),
	})
	book.Observe(nil) // a device that has just restarted tells nothing
	book.Forget(wgdev.Key{9, 4})
	must(t, book.Save(file))
	s, err := os.Stat(file)
	must(t, err)
	if s.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", s.Mode())
	}

	restored := wgdev.NewEndpointBook()
	must(t, restored.Load(file))
	given := []wgdev.Peer{{PublicKey: wgdev.Key{9, 1}}, {PublicKey: wgdev.Key{9, 2}}, {PublicKey: wgdev.Key{9, 3}}, {PublicKey: wgdev.Key{9, 4}},
		{PublicKey: wgdev.Key{9, 5}, Endpoint: netip.MustParseAddrPort("198.18.9.9:9"), Keepalive: 7 * time.Second}}
	got := restored.Fill(given)
	for i, want := range []struct {
		endpoint  string
		keepalive time.Duration
	}{
		{"198.18.0.1:1", wgdev.RestoreKeepalive},
		{"[fd00::2]:2", 0}, // its session was over anyway
		{"invalid AddrPort", 0},
		{"invalid AddrPort", 0},
		{"198.18.9.9:9", 7 * time.Second}, // as the caller wants it
	} {
		if got[i].Endpoint.String() != want.endpoint || got[i].Keepalive != want.keepalive {
			t.Errorf("peer %d: %s %s, want %+v", i+1, got[i].Endpoint, got[i].Keepalive, want)
		}
	}
	if given[0].Endpoint.IsValid() {
		t.Error("Fill changed what it was given")
	}
}

func TestEndpointBookSavesOnlyWhatChanged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "endpoints.json")
	book := wgdev.NewEndpointBook()
	book.Observe([]wgdev.PeerState{seen(1, "198.18.0.1:1", 0)})
	must(t, book.Save(file), os.Remove(file))
	book.Observe([]wgdev.PeerState{seen(1, "198.18.0.1:1", time.Minute)})
	must(t, book.Save(file))
	if _, err := os.Stat(file); err == nil {
		t.Error("written without need")
	}
	book.Observe([]wgdev.PeerState{seen(1, "198.18.0.1:2", time.Minute)}) // it roamed
	must(t, book.Save(file))
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(filepath.Dir(file))
	must(t, err)
	if len(left) != 1 {
		t.Errorf("left-overs: %v", left)
	}
}

func FuzzLoadEndpoints(f *testing.F) {
	f.Add([]byte(`{"version":1,"endpoints":[{"public_key":"CQEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","endpoint":"198.18.0.1:1","live":true}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"endpoints":[{"public_key":"","endpoint":"","live":1}]}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(t.TempDir(), "e")
		must(t, os.WriteFile(file, text, 0o600))
		book := wgdev.NewEndpointBook()
		if err := book.Load(file); err != nil {
			return
		}
		for _, p := range book.Fill([]wgdev.Peer{{PublicKey: wgdev.Key{9, 1}}}) {
			if p.Endpoint.IsValid() && (p.Endpoint.Port() == 0 || p.Endpoint.Addr().IsUnspecified()) {
				t.Errorf("endpoint %s", p.Endpoint)
			}
		}
	})
}
