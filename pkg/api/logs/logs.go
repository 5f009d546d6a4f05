// Package logs declares the operations of the service that keeps the log lines
// of all services and answers questions about them. It owns no behaviour.
//
// Every operation that takes a query takes the language of docs/logs.md.
package logs

import (
	"encoding/json"
	"time"

	"vpnd/pkg/rpc"
)

// Record is one line, with its known keys apart.
type Record struct {
	ID        string          `json:"id" doc:"where it is kept; rises with time"`
	Time      time.Time       `json:"ts"`
	Level     string          `json:"level,omitempty" doc:"trace, debug, info, warn, error or fatal"`
	Service   string          `json:"service,omitempty"`
	Event     string          `json:"event,omitempty"`
	Message   string          `json:"message,omitempty"`
	User      string          `json:"user,omitempty"`
	Device    string          `json:"device,omitempty"`
	Session   string          `json:"session,omitempty"`
	RequestID string          `json:"request_id,omitempty"`
	Fields    json.RawMessage `json:"fields,omitempty" doc:"every other key, in the order of the line"`
	File      string          `json:"file,omitempty" doc:"the file it was read from"`
	Cut       bool            `json:"cut,omitempty" doc:"it was longer than 1 MiB"`
	Missed    uint64          `json:"missed,omitempty" doc:"follow: lines dropped just before this one because the reader was slow"`
	Mark      bool            `json:"mark,omitempty" doc:"follow: no line; the ids of all marks together are for since_id"`
}

// Ask is what every question has in common.
type Ask struct {
	Query string `query:"q" maxLength:"65536" doc:"such as: service=auth level>=warn since=1h"`
}

// QueryRequest asks for lines.
type QueryRequest struct {
	Ask
	Limit int    `query:"limit" minimum:"1" maximum:"10000" default:"100"`
	Order string `query:"order" enum:"newest,oldest" default:"newest"`
	After string `query:"after" maxLength:"256" doc:"cursor from the page before"`
}

// Query gives lines, a page at a time.
var Query = rpc.Op[QueryRequest, rpc.List[Record]]{Info: rpc.Info{
	ID: "logs.query", Method: "GET", Path: "/v1/logs", Access: rpc.View, From: []string{"control"}, Timeout: time.Minute, Summary: "Find log lines",
}}

// Number is a count.
type Number struct {
	Count int64 `json:"count"`
}

// Count counts lines.
var Count = rpc.Op[Ask, Number]{Info: rpc.Info{
	ID: "logs.count", Method: "GET", Path: "/v1/logs-count", Access: rpc.View, From: []string{"control"}, Timeout: time.Minute, Summary: "Count log lines",
}}

// StatsRequest counts by the values of fields.
type StatsRequest struct {
	Ask
	By    []string `query:"by" minItems:"1" maxItems:"4" doc:"fields"`
	Limit int      `query:"limit" minimum:"1" maximum:"10000" default:"1000"`
}

// Group is one combination of values.
type Group struct {
	Values []string  `json:"values" doc:"of the fields asked for, in their order; empty where a line has none"`
	Count  int64     `json:"count"`
	First  time.Time `json:"first"`
	Last   time.Time `json:"last"`
}

// Stats counts lines by the values of fields, the most frequent first.
var Stats = rpc.Op[StatsRequest, rpc.List[Group]]{Info: rpc.Info{
	ID: "logs.stats", Method: "GET", Path: "/v1/logs-stats", Access: rpc.View, From: []string{"control"}, Timeout: time.Minute, Summary: "Count log lines by fields",
}}

// TopRequest asks for the most frequent values of a field.
type TopRequest struct {
	Ask
	Field string `query:"field" minLength:"1" maxLength:"128"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"10"`
}

// Top gives the most frequent values of a field.
var Top = rpc.Op[TopRequest, rpc.List[Group]]{Info: rpc.Info{
	ID: "logs.top", Method: "GET", Path: "/v1/logs-top", Access: rpc.View, From: []string{"control"}, Timeout: time.Minute, Summary: "Most frequent values of a field",
}}

// HistogramRequest counts over time.
type HistogramRequest struct {
	Ask
	Bucket int    `query:"bucket_seconds" minimum:"1" maximum:"31536000" default:"3600"`
	By     string `query:"by" maxLength:"128" doc:"split every bucket by this field"`
}

// Bucket is one stretch of time.
type Bucket struct {
	Start time.Time        `json:"start"`
	Count int64            `json:"count"`
	By    map[string]int64 `json:"by,omitempty"`
}

// Histogram counts lines over time; empty buckets between the first and the
// last are there.
var Histogram = rpc.Op[HistogramRequest, rpc.List[Bucket]]{Info: rpc.Info{
	ID: "logs.histogram", Method: "GET", Path: "/v1/logs-histogram", Access: rpc.View, From: []string{"control"}, Timeout: time.Minute, Summary: "Count log lines over time",
}}

// Field is a key that lines have.
type Field struct {
	Name  string `json:"name"`
	Count int64  `json:"count" doc:"lines that have it"`
}

// Fields lists the keys of the lines that match.
var Fields = rpc.Op[Ask, rpc.List[Field]]{Info: rpc.Info{
	ID: "logs.fields", Method: "GET", Path: "/v1/logs-fields", Access: rpc.View, From: []string{"control"}, Timeout: time.Minute, Summary: "Fields that log lines have",
}}

// ServiceLines tells how much a service says.
type ServiceLines struct {
	Name   string    `json:"name"`
	Count  int64     `json:"count"`
	Errors int64     `json:"errors" doc:"of level error or fatal"`
	Last   time.Time `json:"last"`
}

// Services lists who writes.
var Services = rpc.Op[Ask, rpc.List[ServiceLines]]{Info: rpc.Info{
	ID: "logs.services", Method: "GET", Path: "/v1/logs-services", Access: rpc.View, From: []string{"control"}, Timeout: time.Minute, Summary: "Services that write log lines",
}}

// FollowRequest asks for lines as they come.
type FollowRequest struct {
	Ask
	Since string `query:"since_id" maxLength:"4096" doc:"id of the last line seen, to go on behind it; of several days that of each, with commas; empty for new lines only"`
	Marks bool   `query:"marks" doc:"begin with marks: at least one record, whose ids name all lines of the latest days"`
}

// Follow gives lines as they come.
var Follow = rpc.Stream[FollowRequest, Record]{Info: rpc.Info{
	ID: "logs.follow", Method: "GET", Path: "/v1/logs-follow", Access: rpc.View, From: []string{"control"}, Summary: "Follow log lines",
}}

// Export gives all lines that match, the oldest first.
var Export = rpc.Stream[Ask, Record]{Info: rpc.Info{
	ID: "logs.export", Method: "GET", Path: "/v1/logs-export", Access: rpc.View, From: []string{"control"}, Summary: "All log lines that match, the oldest first",
}}

// Saved is a query with a name.
type Saved struct {
	Name      string     `json:"name"`
	Query     string     `json:"query"`
	CreatedAt time.Time  `json:"created_at"`
	UpdatedAt time.Time  `json:"updated_at"`
	Runs      int64      `json:"runs"`
	LastRun   *time.Time `json:"last_run,omitempty"`
}

// SavedRef names a saved query.
type SavedRef struct {
	Name string `path:"name" pattern:"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"`
}

// SaveRequest saves a query under a name.
type SaveRequest struct {
	SavedRef
	Body struct {
		Query string `json:"query" maxLength:"65536"`
	}
}

// Saved queries. RunSaved counts a run and gives the query to ask.
var (
	ListSaved = rpc.Op[struct{}, rpc.List[Saved]]{Info: rpc.Info{
		ID: "logs.saved.list", Method: "GET", Path: "/v1/logs-saved", Access: rpc.View, From: []string{"control"}, Summary: "List saved queries",
	}}
	Save = rpc.Op[SaveRequest, Saved]{Info: rpc.Info{
		ID: "logs.saved.save", Method: "PUT", Path: "/v1/logs-saved/{name}", Access: rpc.Admin, From: []string{"control"}, Summary: "Save a query",
	}}
	RunSaved = rpc.Op[SavedRef, Saved]{Info: rpc.Info{
		ID: "logs.saved.run", Method: "GET", Path: "/v1/logs-saved/{name}", Access: rpc.View, From: []string{"control"}, Summary: "Count a run of a saved query and give it",
	}}
	DeleteSaved = rpc.Op[SavedRef, rpc.None]{Info: rpc.Info{
		ID: "logs.saved.delete", Method: "DELETE", Path: "/v1/logs-saved/{name}", Access: rpc.Admin, From: []string{"control"}, Summary: "Delete a saved query",
	}}
)

// PurgeRequest removes lines.
type PurgeRequest struct {
	Body struct {
		Query  string `json:"query" minLength:"1" maxLength:"65536" doc:"must say something: nothing never means everything"`
		DryRun bool   `json:"dry_run,omitempty"`
	}
}

// Purged is what was, or would be, removed.
type Purged struct {
	Rows int64 `json:"rows"`
	Days []struct {
		Day  string `json:"day" doc:"YYYY-MM-DD"`
		Rows int64  `json:"rows"`
	} `json:"days"`
	DryRun bool `json:"dry_run"`
}

// Purge removes lines.
var Purge = rpc.Op[PurgeRequest, Purged]{Info: rpc.Info{
	ID: "logs.purge", Method: "POST", Path: "/v1/logs-purge", Access: rpc.Admin, From: []string{"control"}, Timeout: 10 * time.Minute, Summary: "Remove log lines for good",
}}

// Day is one day file.
type Day struct {
	Day     string `json:"day" doc:"YYYY-MM-DD, UTC"`
	Rows    int64  `json:"rows"`
	Bytes   int64  `json:"bytes"`
	Damaged string `json:"damaged,omitempty" doc:"why it does not answer"`
}

// File is a file that is followed, or why it is not.
type File struct {
	Path    string `json:"path"`
	Offset  int64  `json:"offset"`
	Size    int64  `json:"size"`
	LagMs   int64  `json:"lag_ms" doc:"age of the oldest byte that is not taken in yet; 0 when there is none"`
	Skipped string `json:"skipped,omitempty" doc:"why it is not read"`
}

// Problem is something that wants attention.
type Problem struct {
	What string `json:"what" doc:"what is wrong, such as: lines are not taken in: the disk is full"`
	Hint string `json:"hint" doc:"what to do"`
}

// Status is how the service does.
type Status struct {
	Rows        int64      `json:"rows"`
	Bytes       int64      `json:"bytes" doc:"on disk"`
	Oldest      *time.Time `json:"oldest,omitempty"`
	Newest      *time.Time `json:"newest,omitempty"`
	LinesIn     int64      `json:"lines_in" doc:"since the service started"`
	BytesIn     int64      `json:"bytes_in"`
	Rate        float64    `json:"lines_per_second" doc:"over the last minute"`
	LagMs       int64      `json:"lag_ms" doc:"the greatest of all files"`
	PausedMs    int64      `json:"paused_ms" doc:"time that reading waited for the disk"`
	SlowQueries int64      `json:"slow_queries" doc:"that took longer than 500 ms"`
	Followers   int        `json:"followers"`
	Problem     string     `json:"problem,omitempty" doc:"the first of the problems"`
	Hint        string     `json:"hint,omitempty" doc:"what to do about it"`
	Problems    []Problem  `json:"problems" doc:"the gravest first"`
	Dirs        []string   `json:"dirs" doc:"folders whose files are read"`
	Store       string     `json:"store" doc:"folder of what is kept"`
	Days        []Day      `json:"days"`
	Files       []File     `json:"files"`
	MoreSkipped int        `json:"more_skipped,omitempty" doc:"files that are not read either, beyond those listed"`
}

// GetStatus tells how the service does.
var GetStatus = rpc.Op[struct{}, Status]{Info: rpc.Info{
	ID: "logs.status", Method: "GET", Path: "/v1/logs-status", Access: rpc.View, From: []string{"control"}, Summary: "How the log service does",
}}
