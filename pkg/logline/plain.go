package logline

import (
	"strings"
	"time"
)

// plain recognises the time and the level at the beginning of a line that is
// no JSON, where nothing else can be meant:
//
//	2026-01-02 15:04:05,123 [WARN] …    [2026-01-02T15:04:05Z] error: …    panic: …
//
// The line itself stays as it is, so nothing is lost when the guess is poor.
func plain(s string, now time.Time) (t time.Time, l Level) {
	rest := strings.TrimPrefix(strings.TrimLeft(s, " \t"), "[")
	if when, n, ok := iso(rest); ok && n >= 16 && (n == len(rest) || strings.IndexByte(" \t]:|", rest[n]) >= 0) {
		if Plausible(when, now) {
			t = when
		}
		rest = strings.TrimLeft(rest[n:], " \t]:|-")
	} else {
		rest = strings.TrimLeft(s, " \t")
	}
	bracket := strings.HasPrefix(rest, "[")
	rest = strings.TrimPrefix(rest, "[")
	end := strings.IndexFunc(rest, func(r rune) bool { return !(r|0x20 >= 'a' && r|0x20 <= 'z') })
	if end < 0 {
		end = len(rest)
	}
	word, after := rest[:end], rest[end:]
	switch {
	case bracket && strings.HasPrefix(after, "]"):
	case strings.HasPrefix(after, ": ") || after == ":":
	case word == strings.ToUpper(word) && (after == "" || strings.IndexByte(" \t|", after[0]) >= 0):
	default:
		return t, Unknown
	}
	return t, wordLevel(strings.ToLower(word))
}
