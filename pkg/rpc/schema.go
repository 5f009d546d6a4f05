package rpc

import (
	"path"
	"reflect"
	"strings"
)

// schemaName names a type in the OpenAPI description: package and type, so
// that users.User and any other User can stand in one document.
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := t.Name()
	if name == "" {
		return strings.NewReplacer(".", "", "_", "").Replace(title(hint))
	}
	outer, args, generic := strings.Cut(name, "[")
	if !generic {
		return title(path.Base(t.PkgPath())) + title(outer)
	}
	out := title(outer)
	for arg := range strings.FieldsFuncSeq(args, func(r rune) bool { return strings.ContainsRune("[],*", r) }) {
		pkg, base, ok := strings.Cut(path.Base(arg), ".")
		if !ok {
			pkg, base = "", path.Base(arg)
		}
		out += title(pkg) + title(base)
	}
	return out
}

func title(s string) string {
	if s == "" || s == "." {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
