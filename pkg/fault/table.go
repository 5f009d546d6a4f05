package fault

import "net/http"

// Row is one line of the code table.
type Row struct {
	Code    Code
	HTTP    int    // status sent with the code
	Exit    int    // exit status of the command line
	Meaning string // what the exit status means, for manuals
}

// Table returns the code table, ordered by exit status. Exit status 0 is
// success and has no code.
func Table() []Row {
	return []Row{
		{Internal, http.StatusInternalServerError, 1, "failed"},
		{Invalid, http.StatusUnprocessableEntity, 2, "bad usage or input"},
		{NotFound, http.StatusNotFound, 3, "not found"},
		{Unauthenticated, http.StatusUnauthorized, 4, "not allowed"},
		{Denied, http.StatusForbidden, 4, "not allowed"},
		{Exists, http.StatusConflict, 5, "exists, conflicts or full"},
		{Conflict, http.StatusConflict, 5, "exists, conflicts or full"},
		{Exhausted, http.StatusConflict, 5, "exists, conflicts or full"},
		{Risk, http.StatusPreconditionFailed, 6, "refused for safety: a named risk was not accepted"},
		{Unavailable, http.StatusServiceUnavailable, 7, "vpnd or a service is not reachable, or too old"},
		{Unimplemented, http.StatusNotImplemented, 7, "vpnd or a service is not reachable, or too old"},
		{Timeout, http.StatusGatewayTimeout, 8, "timed out, still pending, or told to wait"},
		{Throttled, http.StatusTooManyRequests, 8, "timed out, still pending, or told to wait"},
		{Unhealthy, http.StatusServiceUnavailable, 9, "checked and found unhealthy"},
		{Differs, http.StatusConflict, 10, "differences found"},
		{Canceled, 499, 130, "interrupted"},
	}
}

func row(c Code) Row {
	for _, r := range Table() {
		if r.Code == c {
			return r
		}
	}
	return Table()[0]
}

// HTTPStatus is the status sent with the code; unknown codes count as internal.
func (c Code) HTTPStatus() int { return row(c).HTTP }

// ExitStatus is the exit status of a command that ended with the code.
func (c Code) ExitStatus() int { return row(c).Exit }

// ExitStatus is what a command ends with for err: 0 for nil.
func ExitStatus(err error) int {
	if err == nil {
		return 0
	}
	return From(err).Code.ExitStatus()
}

// FromHTTP gives the code for a status that came without one, such as an
// answer of a proxy.
func FromHTTP(status int) Code {
	switch status {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable,
		http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return Invalid
	case http.StatusConflict:
		return Conflict
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		return Unavailable
	case http.StatusRequestTimeout:
		return Timeout
	}
	for _, r := range Table() {
		if r.HTTP == status {
			return r.Code
		}
	}
	return Internal
}
