package view

import (
	"strings"

	"charm.land/lipgloss/v2"
)

// Theme says what a terminal can show.
type Theme struct {
	Color   bool // the sixteen colours of the terminal's own palette
	Unicode bool // the locale is UTF-8
}

// Mark is the symbol as the terminal can show it.
func (t Theme) Mark(s Symbol) string {
	if t.Unicode {
		return s.Unicode
	}
	return s.ASCII
}

// Paint colours text that is harmless already.
func (t Theme) Paint(s string, tone Tone) string {
	if !t.Color || tone == Normal || strings.TrimSpace(s) == "" {
		return s
	}
	style := lipgloss.NewStyle()
	switch tone {
	case Good:
		style = style.Foreground(lipgloss.Green)
	case Notice:
		style = style.Foreground(lipgloss.Cyan)
	case Warn:
		style = style.Foreground(lipgloss.Yellow)
	case Bad:
		style = style.Foreground(lipgloss.Red)
	case Faint:
		style = style.Faint(true)
	case Strong:
		style = style.Bold(true)
	case Normal:
	}
	return style.Render(s)
}

// Show is a cell as people see it, without padding.
func (t Theme) Show(c Cell) string { return t.Paint(t.words(c), c.Tone) }

func (t Theme) words(c Cell) string {
	s := Clean(c.Text)
	if !t.Unicode {
		s = ascii(s)
	}
	if m := t.Mark(c.Symbol); m != "" {
		return m + " " + s
	}
	return s
}

// ascii replaces what this package itself adds to texts.
func ascii(s string) string {
	return strings.NewReplacer("…", "~", "→", ">", "█", "#", "░", ".").Replace(s)
}
