package torpath

import (
	"fmt"
	"slices"
	"strings"

	"vpnd/pkg/fault"
)

// maxExits is how many words one choice may have.
const maxExits = 50

// Exits is what a choice allows: relays in any of the countries and relays with
// any of the fingerprints. The zero value allows every exit.
type Exits struct {
	Countries    []string // two letters, lower case
	Fingerprints []string // 40 hexadecimal digits, upper case
}

// ParseExits reads 1 to 50 words: a country ("de", "DE", "{de}") or the
// fingerprint of a relay, with or without $. What comes twice counts once. It
// gives Invalid with a field exits[i] for every word that is neither.
func ParseExits(words []string) (Exits, error) {
	const remedy = "name countries by two letters, such as de, and relays by their fingerprint of 40 hexadecimal digits"
	if len(words) == 0 || len(words) > maxExits {
		return Exits{}, fault.InvalidField("exits", "want 1 to %d countries or relays, got %d", maxExits, len(words)).WithHint(remedy)
	}
	var e Exits
	var bad []string
	err := fault.New(fault.Invalid, "")
	for i, w := range words {
		if fp, ok := fingerprint(w); ok {
			if !slices.Contains(e.Fingerprints, fp) {
				e.Fingerprints = append(e.Fingerprints, fp)
			}
			continue
		}
		if cc, ok := country(w); ok {
			if !slices.Contains(e.Countries, cc) {
				e.Countries = append(e.Countries, cc)
			}
			continue
		}
		one := fault.InvalidField(fmt.Sprintf("exits[%d]", i), "%.60q is neither a country nor the fingerprint of a relay", w)
		bad = append(bad, one.Message)
		err = err.WithFields(one.Fields...)
	}
	if len(bad) > 0 {
		err.Message = strings.Join(bad, "; ")
		return Exits{}, err.WithHint(remedy)
	}
	return e, nil
}

func fingerprint(w string) (string, bool) {
	w = strings.ToUpper(strings.TrimPrefix(w, "$"))
	return w, len(w) == 40 && strings.Trim(w, "0123456789ABCDEF") == ""
}

func country(w string) (string, bool) {
	if in, ok := strings.CutPrefix(w, "{"); ok {
		if w, ok = strings.CutSuffix(in, "}"); !ok {
			return "", false
		}
	}
	w = strings.ToLower(w)
	return w, len(w) == 2 && strings.Trim(w, "abcdefghijklmnopqrstuvwxyz") == ""
}

// allows tells whether the choice allows the relay.
func (e Exits) allows(r *Relay) bool {
	if len(e.Countries) == 0 && len(e.Fingerprints) == 0 {
		return true
	}
	return r.Country != "" && slices.Contains(e.Countries, r.Country) || slices.Contains(e.Fingerprints, r.Fingerprint)
}
