// Package build tells which build this is. It owns nothing else; its values
// are set by the linker and never change while a program runs.
package build

import "runtime"

// version is set with -ldflags "-X vpnd/pkg/build.version=…".
var version = "0.1.0-dev"

// Info is what `version` commands print.
type Info struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// Get returns the facts of this build.
func Get() Info {
	return Info{Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
}
