use super::*;

fn function(name: &str, inlined: bool) -> Function {
    let offset = (!inlined).then_some(4);
    Function { name: name.to_owned(), offset, file: Some("x.c".to_owned()), line: Some(7), inlined }
}

/// Every frame with a place is `inner`, inlined into `outer`.
fn name(frames: &[Naked]) -> Vec<Named> {
    let functions = || vec![function("inner", true), function("outer", false)];
    frames.iter().map(|frame| frame.place.as_ref().map(|_| functions())).collect()
}

fn frame(offset: &str, build_id: &str) -> String {
    format!(
        r#"{{"address":"{offset}","symbol":null,"module":"/x","build_id":{build_id},"offset":"{offset}","file":null,"line":null,"inlined":false}}"#
    )
}

fn symbolized(text: &str) -> (serde_json::Value, Tally) {
    let mut record: Fields = serde_json::from_str(text).unwrap();
    let tally = symbolize(&mut record, &mut name).unwrap();
    (serde_json::to_value(&record).unwrap(), tally)
}

#[test]
fn frames_get_names_and_their_inlined_functions() {
    let stack = format!("[{},{}]", frame("0x10", "\"abcdef01\""), frame("0x20", "null"));
    let omitted = r#"{"count":5,"before":1}"#;
    let (record, tally) = symbolized(&format!(
        r#"{{"type":"crash","instruction_pointer":"0x10","instruction_symbol":null,"stack_trace":{stack},"stack_omitted":{omitted},"symbols_failed":[{{"module":"/x","reason":"busy"}},{{"module":"/y","reason":"busy"}}]}}"#
    ));
    let symbols: Vec<_> =
        record["stack_trace"].as_array().unwrap().iter().map(|frame| frame["symbol"].clone()).collect();
    assert_eq!(symbols, ["inner".into(), "outer+0x4".into(), serde_json::Value::Null]);
    let first = &record["stack_trace"][0];
    assert_eq!((&first["file"], &first["line"], &first["inlined"]), (&"x.c".into(), &7.into(), &true.into()));
    assert_eq!(record["instruction_symbol"], "outer+0x4");
    assert_eq!(record["stack_omitted"]["before"], 2, "the frames before it are more now");
    assert_eq!(record["stack_omitted"]["count"], 5);
    assert_eq!(record["symbols_failed"].as_array().unwrap().len(), 2, "one frame of /x has no name yet");
    assert_eq!(tally, Tally { named: 1, unnamed: 1 });
}

#[test]
fn a_file_whose_frames_have_names_has_not_failed() {
    let stack = frame("0x10", "\"abcdef01\"");
    let (record, _) =
        symbolized(&format!(r#"{{"stack_trace":[{stack}],"symbols_failed":[{{"module":"/x","reason":"busy"}}]}}"#));
    assert_eq!(record["symbols_failed"], serde_json::json!([]));
}

#[test]
fn every_stack_of_a_record_is_named() {
    let stack = frame("0x10", "\"abcdef01\"");
    let (record, tally) = symbolized(&format!(
        r#"{{"ended_by":{{"stack_trace":[{stack}]}},"earlier_fault":{{"stack_trace":[{stack}]}},"threads":[{{"tid":1,"stack_trace":[{stack}]}}],"groups":[{{"frames":[{stack}]}},{{"frames":null}}]}}"#
    ));
    for place in ["/ended_by/stack_trace", "/earlier_fault/stack_trace", "/threads/0/stack_trace", "/groups/0/frames"] {
        assert_eq!(record.pointer(place).unwrap()[1]["symbol"], "outer+0x4", "{place}");
    }
    assert_eq!(tally, Tally { named: 4, unnamed: 0 });
}

#[test]
fn what_has_no_place_stays_as_it_is() {
    let python = r#"{"symbol":"f","module":"/x","build_id":"abcdef01","offset":"0x1","language":"python"}"#;
    for text in [
        format!(r#"{{"stack_trace":[{}]}}"#, frame("0x10", "null")),
        format!(r#"{{"stack_trace":[{}]}}"#, frame("0x10", "\"xyz\"")),
        format!(r#"{{"stack_trace":[{python}]}}"#),
        r#"{"stack_trace":null,"threads":null}"#.to_owned(),
        r#"{"stack_trace":7}"#.to_owned(),
    ] {
        let mut record: Fields = serde_json::from_str(&text).unwrap();
        symbolize(&mut record, &mut name).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
    }
}
