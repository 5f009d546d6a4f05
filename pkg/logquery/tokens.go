package logquery

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxToken is how many runes of a token count.
const MaxToken = 64

// Tokens splits text into what a search sees: the runs of letters, digits and
// underscores (by Unicode's classes L and Nd), in lower case, each cut after
// MaxToken runes. The tokens of tokens joined by spaces are the same tokens.
func Tokens(s string) []string { return AppendTokens(nil, s) }

// AppendTokens is Tokens into a slice of the caller's.
func AppendTokens(dst []string, s string) []string {
	for i := 0; ; {
		start, end, ascii := nextToken(s, i)
		if start == end {
			return dst
		}
		dst = append(dst, fold(s[start:end], ascii))
		i = end
	}
}

// nextToken finds the first run at or after i; an empty one is the end of s.
func nextToken(s string, i int) (start, end int, ascii bool) {
	for i < len(s) {
		n, _ := inToken(s, i)
		if n > 0 {
			break
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		i += size
	}
	start, ascii = i, true
	for i < len(s) {
		n, a := inToken(s, i)
		if n == 0 {
			break
		}
		i += n
		ascii = ascii && a
	}
	return start, i, ascii
}

// tokenByte says of each ASCII byte whether tokens have it.
var tokenByte = func() (t [utf8.RuneSelf]bool) {
	for c := range t {
		t[c] = c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
	}
	return t
}()

// inToken is the length of the rune at i if tokens have it, else 0.
func inToken(s string, i int) (n int, ascii bool) {
	if c := s[i]; c < utf8.RuneSelf {
		if tokenByte[c] {
			return 1, true
		}
		return 0, true
	}
	r, size := utf8.DecodeRuneInString(s[i:])
	if unicode.IsLetter(r) || unicode.IsDigit(r) {
		return size, false
	}
	return 0, false
}

func fold(s string, ascii bool) string {
	if len(s) > MaxToken {
		if ascii {
			s = s[:MaxToken]
		} else {
			n := 0
			for i := range s {
				if n == MaxToken {
					s = s[:i]
					break
				}
				n++
			}
		}
	}
	return strings.ToLower(s)
}

// phrase is a text term made ready.
type phrase struct {
	tokens []string
	prefix bool  // the last token may go on
	fall   []int // for each token that must be equal, see in
}

func (t Term) phrase() phrase {
	p := phrase{tokens: Tokens(t.Values[0])}
	p.prefix = len(p.tokens) > 0 && len(t.Prefix) > 0 && t.Prefix[0]
	// As Knuth, Morris and Pratt have it: how much of the phrase's beginning is
	// still there when the token after it is not the one wanted.
	equal := p.equal()
	p.fall = make([]int, len(equal))
	for i, k := 1, 0; i < len(equal); i++ {
		for k > 0 && equal[i] != equal[k] {
			k = p.fall[k-1]
		}
		if equal[i] == equal[k] {
			k++
		}
		p.fall[i] = k
	}
	return p
}

// equal are the tokens of which all must be there.
func (p phrase) equal() []string {
	if p.prefix {
		return p.tokens[:len(p.tokens)-1]
	}
	return p.tokens
}

// at reports whether the phrase stands at the beginning of tokens.
func (p phrase) at(tokens []string) bool {
	n := len(p.tokens)
	if n == 0 || n > len(tokens) {
		return false
	}
	for i, want := range p.tokens {
		if got := tokens[i]; got != want && !(p.prefix && i == n-1 && strings.HasPrefix(got, want)) {
			return false
		}
	}
	return true
}

// in reports whether the phrase stands anywhere in tokens. It looks at each of
// them once, however long the phrase is.
func (p phrase) in(tokens []string) bool {
	equal, last := p.equal(), ""
	if p.prefix {
		last = p.tokens[len(p.tokens)-1]
	}
	if len(equal) == 0 {
		return p.prefix && slices.ContainsFunc(tokens, func(s string) bool { return strings.HasPrefix(s, last) })
	}
	k := 0
	for i, got := range tokens {
		for k > 0 && (k == len(equal) || got != equal[k]) {
			k = p.fall[k-1]
		}
		if got == equal[k] {
			k++
		}
		if k == len(equal) && (!p.prefix || i+1 < len(tokens) && strings.HasPrefix(tokens[i+1], last)) {
			return true
		}
	}
	return false
}

// Highlights are the byte ranges of s that the text terms of the query look
// for, from left to right, none touching another's bytes.
func (q Query) Highlights(s string) [][2]int {
	var phrases []phrase
	for _, t := range q.Terms {
		if t.Op == Text && !t.Not {
			phrases = append(phrases, t.phrase())
		}
	}
	if phrases == nil {
		return nil
	}
	var tokens []string
	var spans [][2]int
	for i := 0; ; {
		start, end, ascii := nextToken(s, i)
		if start == end {
			break
		}
		tokens = append(tokens, fold(s[start:end], ascii))
		spans = append(spans, [2]int{start, end})
		i = end
	}
	var out [][2]int
	for i := 0; i < len(tokens); {
		n := 0
		for _, p := range phrases {
			if len(p.tokens) > n && p.at(tokens[i:]) {
				n = len(p.tokens)
			}
		}
		if n == 0 {
			i++
			continue
		}
		out = append(out, [2]int{spans[i][0], spans[i+n-1][1]})
		i += n
	}
	return out
}
