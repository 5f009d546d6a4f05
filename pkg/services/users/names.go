package users

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"vpnd/pkg/api/id"
	"vpnd/pkg/fault"
)

const maxEmail = 254 // RFC 5321, section 4.5.3.1.3, less the angle brackets

// checkUsername refuses what the declared pattern cannot: names that could be
// taken for an id.
func checkUsername(name string) error {
	if strings.HasPrefix(name, id.UserPrefix) {
		return fault.InvalidField("body.username", "must not begin with %s, as ids do", id.UserPrefix)
	}
	return nil
}

// checkEmail is no parser of RFC 5322: an address is for signing in, and only
// what could confuse people or programs is refused.
func checkEmail(email string) error {
	if email == "" {
		return nil
	}
	local, domain, _ := strings.Cut(email, "@")
	switch {
	case len(email) > maxEmail:
		return fault.InvalidField("body.email", "is longer than %d bytes", maxEmail)
	case !utf8.ValidString(email) || strings.ContainsFunc(email, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return fault.InvalidField("body.email", "contains spaces or characters that cannot be seen")
	case local == "" || domain == "" || strings.Contains(domain, "@"):
		return fault.InvalidField("body.email", "is not an address like name@example.org")
	}
	return nil
}
