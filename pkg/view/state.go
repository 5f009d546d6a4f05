package view

import (
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/api/users"
)

// look is how a state strikes the eye.
type look struct {
	symbol Symbol
	tone   Tone
}

func state(word string, looks map[string]look) Cell {
	l, ok := looks[word]
	if !ok { // a newer server knows more states
		l = look{Caution, Warn}
	}
	return Cell{Text: word, Symbol: l.symbol, Tone: l.tone}
}

// ServiceState is the state of a supervised process.
func ServiceState(word string) Cell {
	return state(word, map[string]look{
		"ready": {Full, Good}, "running": {Full, Good},
		"starting": {Busy, Notice}, "stopping": {Busy, Notice},
		"unready": {Caution, Warn}, "backoff": {Caution, Warn},
		"unhealthy": {Cross, Bad}, "failed": {Cross, Bad},
		"stopped": {Empty, Faint}, "disabled": {Empty, Faint},
	})
}

// UserState is the standing of an account.
func UserState(s users.Status) Cell {
	return state(string(s), map[string]look{
		string(users.Active): {Full, Good}, string(users.Suspended): {Barred, Warn}, string(users.Deleting): {Busy, Faint},
	})
}

// SessionState is the state of a session.
func SessionState(s sessions.State) Cell {
	return state(string(s), map[string]look{
		string(sessions.Online): {Full, Good}, string(sessions.Offline): {Empty, Warn}, string(sessions.Closed): {Barred, Faint},
	})
}

// LaneState is the state of a lane. A blocked lane lets nothing through, as it
// should before anything could leak.
func LaneState(l lanes.Lane) Cell {
	return state(l.State, map[string]look{
		"up": {Full, Good}, "maintenance": {Caution, Warn}, "blocked": {Barred, Notice}, "down": {Empty, Warn}, "failed": {Cross, Bad},
	})
}

// AuditResult is how a change ended.
func AuditResult(result string) Cell {
	switch result {
	case "ok":
		return Cell{Text: result, Symbol: Check, Tone: Good}
	case "pending":
		return Cell{Text: result, Symbol: Busy, Tone: Notice}
	case "unknown":
		return Cell{Text: result, Symbol: Caution, Tone: Warn}
	}
	return Cell{Text: result, Symbol: Cross, Tone: Bad}
}

// YesNo is a truth, with the tone of a state where it is true.
func YesNo(b bool) Cell {
	if b {
		return Cell{Text: "yes", Tone: Good}
	}
	return Dim("no")
}
