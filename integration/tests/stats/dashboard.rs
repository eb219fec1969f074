//! The dashboard in a real browser: what it shows is what the API says.
//! It must never look at the page's code, only at what somebody would see.

use std::process::{Child, Stdio};
use std::time::Duration;

use fantoccini::key::Key;
use fantoccini::{Client as Browser, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use integration::port::Port;
use integration::{Pgweir, Run};
use serde_json::{Map, Value, json};

use crate::common::{eventually, within};
use crate::{client, conf, json as get, ready};

/// chromedriver on a port of its own; ends with the test.
struct Driver {
    child: Child,
    port: Port,
}

impl Driver {
    fn start() -> Self {
        let port = Port::reserve().unwrap();
        let mut command = integration::command("chromedriver").unwrap();
        command.arg(format!("--port={}", port.number())).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        eventually("chromedriver answers", || std::net::TcpStream::connect(("127.0.0.1", port.number())).is_ok());
        Self { child, port }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a visit with a headless browser of this size, dark or light.
fn visit<F: Future<Output = ()>>(size: (u32, u32), dark: bool, visit: impl FnOnce(Browser) -> F) {
    let driver = Driver::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let profile = Run::current().unwrap().folder("chromium").unwrap();
        // Tests may run as root, in containers with little shared memory.
        let mut args = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            format!("--window-size={},{}", size.0, size.1),
            format!("--user-data-dir={}", profile.display()),
        ];
        if dark {
            args.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        let mut wanted = Map::new();
        wanted.insert("goog:chromeOptions".to_owned(), json!({ "args": args }));
        wanted.insert("goog:loggingPrefs".to_owned(), json!({ "browser": "ALL" }));
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(wanted);
        let browser = builder.connect(&format!("http://127.0.0.1:{}", driver.port.number())).await.unwrap();
        visit(browser.clone()).await;
        browser.close().await.unwrap();
    });
}

fn url(pgweir: &Pgweir) -> String {
    format!("http://127.0.0.1:{}/", pgweir.stats_port())
}

async fn text(browser: &Browser, css: &str) -> String {
    browser.find(Locator::Css(css)).await.unwrap().text().await.unwrap()
}

/// Waits until this script gives true.
async fn until(browser: &Browser, what: &str, script: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        if browser.execute(&format!("return {script}"), vec![]).await.unwrap() == json!(true) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A picture of the page, for whoever wants to look at it: in the folder that `PGWEIR_SCREENSHOTS` names.
async fn picture(browser: &Browser, name: &str) {
    let Some(folder) = std::env::var_os("PGWEIR_SCREENSHOTS") else { return };
    let png = browser.screenshot().await.unwrap();
    std::fs::write(std::path::Path::new(&folder).join(name), png).unwrap();
}

const LOADED: &str = "Number(document.body.dataset.loaded) >= 2";

/// The words of a script's answer.
async fn words(browser: &Browser, script: &str) -> Vec<String> {
    let found = browser.execute(&format!("return {script}"), vec![]).await.unwrap();
    found.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
}

fn steps(pgweir: &Pgweir) -> Vec<Value> {
    get(pgweir, "/api/history")["steps"].as_array().unwrap().clone()
}

#[test]
fn numbers_on_the_page_are_those_of_the_api() {
    let pgweir = conf().size(4).start();
    ready(&pgweir);
    let mut one = client(&pgweir);
    within(Duration::from_secs(60), "there is a step with statements", || {
        for n in 0..30 {
            one.query(&format!("SELECT {n}")).unwrap();
        }
        one.query("SELECT pg_sleep(0.02), '<b>no markup</b>' AS \"<i>x</i>\"").unwrap();
        steps(&pgweir).iter().filter(|step| step["queries_per_second"].as_f64().unwrap() > 0.0).count() >= 2
    });
    visit((1280, 1000), false, async |browser| {
        browser.goto(&url(&pgweir)).await.unwrap();
        until(&browser, "the page is filled twice, without a reload", LOADED).await;
        // Nothing runs any more: what the page asked and what is asked here are the same numbers.
        let queries = get(&pgweir, "/api/queries?limit=20&by=total");
        let shown = words(&browser, "[...document.querySelectorAll('#query-rows tr')].map((row) => row.children[2].textContent.replaceAll(',', ''))").await;
        let calls: Vec<String> =
            queries["queries"].as_array().unwrap().iter().map(|it| it["calls_total"].to_string()).collect();
        assert_eq!(shown, calls);
        let shown =
            words(&browser, "[...document.querySelectorAll('#query-rows button')].map((it) => it.textContent)").await;
        let texts: Vec<&str> =
            queries["queries"].as_array().unwrap().iter().map(|it| it["query"].as_str().unwrap()).collect();
        assert_eq!(shown, texts, "texts come as text");
        let pools = get(&pgweir, "/api/pools");
        let shown = words(&browser, "[...document.querySelectorAll('#pool-rows tr')].map((row) => row.children[2].textContent + ' ' + row.children[10].textContent.replaceAll(',', ''))").await;
        let of_api: Vec<String> = pools["pools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pool| format!("{} {}", pool["host"].as_str().unwrap(), pool["queries_total"]))
            .collect();
        assert_eq!(shown, of_api);
        let hosts = words(
            &browser,
            "[...document.querySelectorAll('#host-rows tr')].map((row) => row.children[2].textContent)",
        )
        .await;
        assert_eq!(
            {
                let mut it = hosts;
                it.sort();
                it
            },
            ["primary", "standby"]
        );
        let score = get(&pgweir, "/api/services/status")["health"]["score"].clone();
        assert_eq!(text(&browser, "#score").await, format!("health {score}"));
        assert!(text(&browser, "#status").await.starts_with("ready"));
        let drawn =
            browser.execute("return document.querySelectorAll('#traffic canvas').length", vec![]).await.unwrap();
        assert_eq!(drawn, json!(4), "four charts");
        orders_of_magnitude_are_equally_far_apart(&browser).await;
        assert_eq!(text(&browser, "#unmeasured").await, "", "all is measured");
        picture(&browser, "wide.png").await;
        // The keyboard is enough: the first statement's button, Enter, Escape.
        let shape = queries["queries"][0]["shape"].as_str().unwrap();
        browser.execute("document.querySelector('#query-rows button').focus()", vec![]).await.unwrap();
        browser.active_element().await.unwrap().send_keys(&Key::Enter.to_string()).await.unwrap();
        until(&browser, "the distribution is shown", "document.querySelectorAll('#shape canvas').length === 1").await;
        let of_shape = get(&pgweir, &format!("/api/queries/{shape}"));
        let buckets =
            of_shape["pools"].as_array().unwrap().iter().flat_map(|pool| pool["time_buckets"].as_array().unwrap());
        let count: u64 = buckets.map(|bucket| bucket["count"].as_u64().unwrap()).sum();
        // Thousands are set apart.
        let title = text(&browser, "#shape-title").await.replace(',', "");
        assert_eq!(title, format!("Distribution of {shape}: {count} statements"));
        picture(&browser, "shape.png").await;
        browser.active_element().await.unwrap().send_keys(&Key::Escape.to_string()).await.unwrap();
        until(&browser, "it is closed", "document.getElementById('shape').hidden").await;
        let focused =
            browser.execute("return document.activeElement.closest('#query-rows') !== null", vec![]).await.unwrap();
        assert_eq!(focused, json!(true), "the focus is back on the statement");
        // One that is counted with others by now takes nothing else away.
        browser.execute("showShape('00000000000000aa', true)", vec![]).await.unwrap();
        let gone = "document.getElementById('shape-title').textContent === 'No distribution of 00000000000000aa'";
        until(&browser, "that one is gone", gone).await;
        browser.execute("document.body.dataset.loaded = '0'", vec![]).await.unwrap();
        until(&browser, "the page goes on", "document.body.dataset.loaded === '1'").await;
        assert!(text(&browser, "#status").await.starts_with("ready"));
        complains_of_nothing(&browser).await;
    });
}

/// The labels beside the latencies, by what is written on the canvas and how high.
async fn orders_of_magnitude_are_equally_far_apart(browser: &Browser) {
    let record = "window.written = {}; const write = CanvasRenderingContext2D.prototype.fillText; \
        CanvasRenderingContext2D.prototype.fillText = function (text, x, y) { \
            const [, value, unit] = /^([\\d.]+) (µs|ms|s)$/.exec(text) ?? []; \
            if (unit && this.canvas.closest('#latency-chart')) window.written[text] = [value * { 'µs': 1e-6, ms: 1e-3, s: 1 }[unit], y]; \
            return write.apply(this, arguments); }; \
        window.dispatchEvent(new Event('resize'))";
    browser.execute(record, vec![]).await.unwrap();
    until(browser, "it is drawn again", "Object.keys(window.written).length > 1").await;
    let written = browser.execute("return Object.values(window.written)", vec![]).await.unwrap();
    let number = |it: &Value| it.as_f64().unwrap();
    let mut labels: Vec<_> =
        written.as_array().unwrap().iter().map(|it| (number(&it[0]).log10(), number(&it[1]))).collect();
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ((first, bottom), (last, top)) = (labels[0], labels[labels.len() - 1]);
    assert!(last - first >= 1.0, "{written}");
    for (at, height) in &labels {
        let expected = bottom + (top - bottom) * (at - first) / (last - first);
        assert!((height - expected).abs() <= 2.0, "{written}");
    }
}

/// The page broke no rule of its policy, and nothing failed in it.
async fn complains_of_nothing(browser: &Browser) {
    let asked = browser.execute("return performance.getEntriesByType('resource').map((it) => it.name).filter((name) => name.startsWith('http') && !name.startsWith(location.origin))", vec![]).await.unwrap();
    assert_eq!(asked, json!([]), "something was asked of others");
    let noted = browser.execute("return document.querySelectorAll('#status.bad').length", vec![]).await.unwrap();
    assert_eq!(noted, json!(0));
}

#[test]
fn on_a_phone_in_the_dark_with_a_token() {
    let tokens = "[stats.tokens.look]\nsecret = \"look-look-look-look\"\n";
    let pgweir = conf().database("stats = \"off\"").rest(tokens).start();
    visit((390, 800), true, async |browser| {
        browser.goto(&url(&pgweir)).await.unwrap();
        until(&browser, "it asks for a token", "!document.getElementById('login').hidden").await;
        let field = browser.find(Locator::Id("token")).await.unwrap();
        field.send_keys("wrong-wrong-wrong-wrong").await.unwrap();
        field.send_keys(&Key::Enter.to_string()).await.unwrap();
        until(
            &browser,
            "it says so",
            "document.getElementById('login-error').textContent.includes('none of the tokens')",
        )
        .await;
        let field = browser.find(Locator::Id("token")).await.unwrap();
        field.send_keys("look-look-look-look").await.unwrap();
        field.send_keys(&Key::Enter.to_string()).await.unwrap();
        until(&browser, "the page is filled twice", LOADED).await;
        let unmeasured = text(&browser, "#unmeasured").await;
        assert!(unmeasured.contains("stats = \"off\") of app"), "{unmeasured}");
        let fits =
            browser.execute("return document.documentElement.scrollWidth <= window.innerWidth", vec![]).await.unwrap();
        assert_eq!(fits, json!(true), "the page is wider than the phone");
        let dark = browser.execute("return getComputedStyle(document.body).backgroundColor", vec![]).await.unwrap();
        assert_eq!(dark, json!("rgb(15, 21, 27)"));
        picture(&browser, "phone.png").await;
        complains_of_nothing(&browser).await;
    });
}
