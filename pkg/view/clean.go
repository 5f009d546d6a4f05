package view

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"charm.land/lipgloss/v2"
)

// Clean makes text that came from outside harmless for a terminal: control
// characters, escape sequences, direction overrides, invisible characters and
// invalid UTF-8 are shown as \x1b, \u202e and the like.
func Clean(s string) string {
	if !needsCleaning(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case harmless(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	return b.String()
}

func needsCleaning(s string) bool {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !harmless(r) {
			return true
		}
		i += n
	}
	return false
}

// harmless characters take the place they seem to take. IsPrint knows no
// spaces but ASCII's.
func harmless(r rune) bool { return unicode.IsPrint(r) }

// Width is the number of terminal cells s takes; East Asian wide characters
// take two.
func Width(s string) int { return lipgloss.Width(s) }

// Fit cuts s to width cells; the last one becomes an ellipsis where something
// was cut.
func Fit(s string, width int) string {
	if Width(s) <= width {
		return s
	}
	if width < 1 {
		return ""
	}
	cut := 0
	for i := range s { // each i is the start of a character
		if Width(s[:i]) > width-1 {
			break
		}
		cut = i
	}
	return s[:cut] + "…"
}

// Pad fills s with spaces to width cells, on the left if right is set.
func Pad(s string, width int, right bool) string {
	n := width - Width(s)
	if n <= 0 {
		return s
	}
	if right {
		return strings.Repeat(" ", n) + s
	}
	return s + strings.Repeat(" ", n)
}
