package logline

import "strings"

// Canonical gives the name that records and queries use for a key: severity is
// level, username is user. Known names are found in any case; every other key
// is returned as it is. The key ts is a field of its own: it holds what a line
// said about its time when that was not believed.
func Canonical(key string) string {
	if key == "ts" {
		return key
	}
	if name := known(key); name != "" {
		return name
	}
	if strings.EqualFold(key, "file") {
		return "file"
	}
	return key
}

// known is the canonical name of a key of a line, and empty for a field's.
func known(key string) string {
	if len(key) < 2 || len(key) > 14 {
		return ""
	}
	if name := lowerKnown(key); name != "" {
		return name
	}
	for i := range len(key) {
		if c := key[i]; c >= 'A' && c <= 'Z' {
			return lowerKnown(strings.ToLower(key))
		}
	}
	return ""
}

func lowerKnown(key string) string {
	switch key {
	case "time", "ts", "timestamp", "@timestamp":
		return "time"
	case "level", "severity", "lvl":
		return "level"
	case "service", "logger", "component":
		return "service"
	case "event":
		return "event"
	case "message", "msg":
		return "message"
	case "user", "username":
		return "user"
	case "device":
		return "device"
	case "session", "session_id", "sessionid":
		return "session"
	case "request_id", "requestid", "req_id", "trace_id", "traceid", "correlation_id":
		return "request_id"
	}
	return ""
}
