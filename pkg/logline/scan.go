package logline

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxNesting is what encoding/json refuses beyond.
const maxNesting = 10000

// peek is the next byte; 0 at the end, which no line contains.
func (p *parser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func (p *parser) space() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\r', '\n':
			p.i++
		default:
			return
		}
	}
}

func (p *parser) open() bool {
	p.i++
	p.depth++
	return p.depth <= maxNesting
}

func (p *parser) close() bool {
	p.i++
	p.depth--
	return true
}

// emptyObject looks ahead without moving.
func (p *parser) emptyObject() bool {
	q := parser{s: p.s, i: p.i + 1}
	q.space()
	return q.peek() == '}'
}

// skip reads one value of any kind without keeping it.
func (p *parser) skip() bool {
	switch p.peek() {
	case '"':
		return p.skipString()
	case '{', '[':
		return p.skipNested()
	case 't':
		return p.word("true")
	case 'f':
		return p.word("false")
	case 'n':
		return p.word("null")
	}
	return p.number()
}

func (p *parser) word(w string) bool {
	if !strings.HasPrefix(p.s[p.i:], w) {
		return false
	}
	p.i += len(w)
	return true
}

func (p *parser) skipNested() bool {
	object := p.peek() == '{'
	end := byte(']')
	if object {
		end = '}'
	}
	if !p.open() {
		return false
	}
	p.space()
	if p.peek() == end {
		return p.close()
	}
	for {
		if object {
			if p.peek() != '"' || !p.skipString() {
				return false
			}
			p.space()
			if p.peek() != ':' {
				return false
			}
			p.i++
			p.space()
		}
		if !p.skip() {
			return false
		}
		p.space()
		switch p.peek() {
		case ',':
			p.i++
			p.space()
		case end:
			return p.close()
		default:
			return false
		}
	}
}

func (p *parser) number() bool {
	if p.peek() == '-' {
		p.i++
	}
	if p.peek() == '0' {
		p.i++
	} else if !p.digits() {
		return false
	}
	if p.peek() == '.' {
		p.i++
		if !p.digits() {
			return false
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.i++
		if c := p.peek(); c == '+' || c == '-' {
			p.i++
		}
		return p.digits()
	}
	return true
}

func (p *parser) digits() bool {
	start := p.i
	for p.i < len(p.s) && isDigit(p.s[p.i]) {
		p.i++
	}
	return p.i > start
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// str reads a string. One without escapes is a part of the line.
func (p *parser) str() (string, bool) {
	start := p.i + 1
	for i := start; i < len(p.s); i++ {
		switch c := p.s[i]; {
		case c == '"':
			p.i = i + 1
			return p.s[start:i], true
		case c == '\\':
			if !p.skipString() {
				return "", false
			}
			return unescape(p.s[start:p.i-1], i-start), true
		case c < 0x20:
			return "", false
		}
	}
	return "", false
}

func (p *parser) skipString() bool {
	for i := p.i + 1; i < len(p.s); i++ {
		switch c := p.s[i]; {
		case c == '"':
			p.i = i + 1
			return true
		case c == '\\':
			i++
			if i == len(p.s) {
				return false
			}
			switch p.s[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if _, ok := hex4(p.s, i+1); !ok {
					return false
				}
				i += 4
			default:
				return false
			}
		case c < 0x20:
			return false
		}
	}
	return false
}

func hex4(s string, i int) (rune, bool) {
	if i+4 > len(s) {
		return 0, false
	}
	var n rune
	for _, c := range []byte(s[i : i+4]) {
		switch {
		case isDigit(c):
			n = n<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			n = n<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return n, true
}

// unescape decodes the inside of a string that skipString has found good;
// before first there is no backslash. Half a surrogate pair is U+FFFD, as in
// encoding/json, and so is NUL.
func unescape(s string, first int) string {
	b := make([]byte, 0, len(s))
	b = append(b, s[:first]...)
	for i := first; i < len(s); i++ {
		if s[i] != '\\' {
			b = append(b, s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r, _ := hex4(s, i+1)
			i += 4
			if utf16.IsSurrogate(r) {
				r2 := rune(-1)
				if strings.HasPrefix(s[i+1:], `\u`) {
					r2, _ = hex4(s, i+3)
				}
				if r = utf16.DecodeRune(r, r2); r != utf8.RuneError {
					i += 6
				}
			}
			if r == 0 {
				r = utf8.RuneError
			}
			b = utf8.AppendRune(b, r)
		default:
			b = append(b, c)
		}
	}
	return string(b)
}
