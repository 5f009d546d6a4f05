package fault

import (
	"math"
	"time"
)

// ContentType is the media type of a Problem (RFC 9457).
const ContentType = "application/problem+json"

// Problem is an Error as it travels: RFC 9457 with our members code, reason,
// hint, errors, retry_after (seconds) and request_id.
type Problem struct {
	Title      string  `json:"title" doc:"HTTP status text"`
	Status     int     `json:"status" doc:"HTTP status"`
	Code       Code    `json:"code" doc:"error code; the list only ever grows"`
	Reason     string  `json:"reason,omitempty" doc:"finer machine-readable word"`
	Detail     string  `json:"detail,omitempty" doc:"what happened"`
	Hint       string  `json:"hint,omitempty" doc:"what to do next"`
	RetryAfter int     `json:"retry_after,omitempty" doc:"seconds until trying again makes sense"`
	Errors     []Field `json:"errors,omitempty" doc:"what was wrong with the input"`
	RequestID  string  `json:"request_id,omitempty" doc:"names the call in the logs"`
}

// RetrySeconds rounds up to whole seconds, the unit of Retry-After.
func RetrySeconds(d time.Duration) int {
	if d <= 0 {
		return 0
	}
	return int(math.Ceil(d.Seconds()))
}

// Error turns what came over the wire back into an Error.
func (p *Problem) Error() *Error {
	e := &Error{
		Code: p.Code, Reason: p.Reason, Message: p.Detail, Hint: p.Hint,
		RetryAfter: time.Duration(p.RetryAfter) * time.Second, Fields: p.Errors,
	}
	if e.Code == "" {
		e.Code = FromHTTP(p.Status)
	}
	if e.Message == "" {
		e.Message = p.Title
	}
	return e
}
