package tor

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vpnd/pkg/config"
)

func TestSettingsThatCannotBeReadStopTheService(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.json")
	if s, err := loadSettings(path); err != nil || s.Isolation != byDevice || len(s.Exits) != 0 {
		t.Errorf("without a file: %+v, %v", s, err)
	}
	for _, text := range []string{"", "{", `{"isolation":"none"}`, `{"isolation":"device","exits":{"u":{"exits":["Germany"],"strict":true}}}`, `{"isolation":"device","exits":{"u":{"exits":[]}}}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := loadSettings(path); err == nil {
			t.Errorf("%q is taken for %+v: a strict choice may be forgotten", text, s)
		}
	}
}

func TestAnOwnChoiceComesBeforeTheGlobalOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.json")
	text := `{"isolation":"destination","exits":{"":{"exits":["de"]},"u1":{"user":"alice","exits":["nl"],"strict":true}}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := loadSettings(path)
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := s.choiceFor("u1"); !ok || !c.Strict || c.Exits.Countries[0] != "nl" {
		t.Errorf("alice has %+v", c)
	}
	if c, ok := s.choiceFor("u2"); !ok || c.Strict || c.Exits.Countries[0] != "de" {
		t.Errorf("others have %+v", c)
	}
}

func TestEveryTorrcHasItsOwnMark(t *testing.T) {
	c := config.Default().Tor
	p := paths{state: `/var/lib/a "b`, run: "/run/x"}
	gw := []netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd00::1")}
	device, destination := torrc(c, p, gw, byDevice, nil), torrc(c, p, gw, byDestination, nil)
	bridged := torrc(c, p, gw, byDevice, []string{"UseBridges 1"})
	if markOf(device) == markOf(destination) || markOf(device) == markOf(bridged) || len(markOf(device)) > 19 {
		t.Errorf("marks %q, %q, %q", markOf(device), markOf(destination), markOf(bridged))
	}
	if !strings.Contains(destination, "IsolateDestAddr") || strings.Contains(device, "IsolateDestAddr") {
		t.Error("isolation per destination is not where it should be")
	}
	for _, want := range []string{"__LeaveStreamsUnattached 1", `Log notice file /var/lib/a "b/notice.log`, "[fd00::1]:9040"} {
		if !strings.Contains(device, want) {
			t.Errorf("%q is missing in\n%s", want, device)
		}
	}
}

func TestTheFirstAddressOfAnAnswerIsTaken(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7\n": "192.0.2.7", `{"IsTor":true,"IP":"192.0.2.7"}`: "192.0.2.7", `{"ip": "2001:db8::7"}`: "2001:db8::7",
		"<p>you are ::ffff:192.0.2.7</p>": "192.0.2.7", "no address, 1.2.3 only": "",
	} {
		got, ok := findAddress(text)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}
