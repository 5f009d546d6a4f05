package torpath_test

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/fault"
	"vpnd/pkg/torpath"
)

func TestParseExits(t *testing.T) {
	fp := fingerprint(0xABC)
	got, err := torpath.ParseExits([]string{"de", "NL", "{De}", "$" + strings.ToLower(fp), fp})
	if d := cmp.Diff(torpath.Exits{Countries: []string{"de", "nl"}, Fingerprints: []string{fp}}, got); err != nil || d != "" {
		t.Error(err, d)
	}
	_, err = torpath.ParseExits([]string{"de", "deu", "nl", ""})
	f := fault.From(err)
	if !errors.Is(err, fault.Invalid) || len(f.Fields) != 2 || f.Fields[0].Path != "exits[1]" || f.Fields[1].Path != "exits[3]" || f.Hint == "" {
		t.Errorf("%+v", f)
	}
	for _, w := range []string{"d", "d1", "{de", "de}", "{}", "??", "$de", "$$" + fp, fp[1:], fp + "0", "{" + fp + "}", "de\n", "ſs", "1.2.3.4"} {
		if e, err := torpath.ParseExits([]string{w}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %+v, %v", w, e, err)
		}
	}
	for n, want := range map[int]bool{0: false, 1: true, 50: true, 51: false} {
		if _, err := torpath.ParseExits(slices.Repeat([]string{"de"}, n)); (err == nil) != want {
			t.Errorf("%d words: %v", n, err)
		}
	}
}

func FuzzParseExits(f *testing.F) {
	f.Add("de,{NL},$" + fingerprint(7))
	f.Fuzz(func(t *testing.T, s string) {
		e, err := torpath.ParseExits(strings.Split(s, ","))
		if err != nil {
			return
		}
		again, err := torpath.ParseExits(append(slices.Clone(e.Countries), e.Fingerprints...))
		if d := cmp.Diff(e, again); err != nil || d != "" {
			t.Errorf("%q: %v %s", s, err, d)
		}
	})
}

func TestPortPolicy(t *testing.T) {
	for text, want := range map[string]string{
		"accept 80,443,1000-2000":    "accept 80,443,1000-2000",
		"accept 443,80,81-90,85-100": "accept 80-100,443",
		"reject 25":                  "accept 1-24,26-65535",
		"reject 1-65535":             "reject 1-65535",
		"accept 1-65535":             "accept 1-65535",
		"accept 65535,65534":         "accept 65534-65535",
		"reject 1-24,26-65535":       "accept 25",
		"reject 2-65535":             "accept 1",
	} {
		if p, err := torpath.ParsePortPolicy(text); err != nil || p.String() != want {
			t.Errorf("%s: %s, %v", text, p, err)
		}
	}
	for _, bad := range []string{"", "accept", "accept ", "accept 0", "accept 65536", "accept 9-8", "accept 1,", "accept 1-", "accept -1", "accept 1, 2", "ACCEPT 1", "permit 1", "accept 1-2-3", "accept +1"} {
		if p, err := torpath.ParsePortPolicy(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %s, %v", bad, p, err)
		}
	}
	if (torpath.PortPolicy{}).Allows(80) {
		t.Error("nothing allows something")
	}
}

// The ranges are compared with a look at the text for every port.
func FuzzPortPolicy(f *testing.F) {
	f.Add("accept 80,443,1000-2000")
	f.Add("reject 1-24,26-65535")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := torpath.ParsePortPolicy(s)
		if err != nil {
			return
		}
		var named [65536]bool
		verb, list, _ := strings.Cut(s, " ")
		for item := range strings.SplitSeq(list, ",") {
			from, to, isRange := strings.Cut(item, "-")
			a, _ := strconv.Atoi(from)
			b, _ := strconv.Atoi(to)
			if !isRange {
				b = a
			}
			for ; a <= b; a++ {
				named[a] = true
			}
		}
		for port := range 65536 {
			if got, want := p.Allows(uint16(port)), port > 0 && named[port] == (verb == "accept"); got != want {
				t.Fatalf("%q: port %d: %v", s, port, got)
			}
		}
		if again, err := torpath.ParsePortPolicy(p.String()); err != nil || !cmp.Equal(p, again) {
			t.Errorf("%q, %s: %v", s, p, err)
		}
	})
}
