//! The page that a browser gets: the status as a table.

use std::fmt::Write;

use crate::{ByteSize, ClientStatus, Status};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em}\
table{border-collapse:collapse}th,td{padding:.25em .8em;border-bottom:1px solid #8884;text-align:right}\
th:first-child,td:first-child{text-align:left}:root{color-scheme:light dark}";

/// The whole page. It asks the browser to load it again every few seconds, and runs no script.
pub(crate) fn render(status: &Status) -> String {
    let size = |bytes| ByteSize::from_bytes(bytes).rounded();
    let pool = &status.pool;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>tmem</title>\n\
         <meta http-equiv=\"refresh\" content=\"5\"><style>{STYLE}</style></head><body>\n\
         <h1>tmem {version}</h1>\n<p>Pool: {used} used of {limit} ({held} held), {pages} pages, {logical} uncompressed.</p>\n{tiers}\
         <p><a href=\"/metrics\">/metrics</a> for Prometheus, <a href=\"/api/v1/status\">/api/v1/status</a> as JSON.</p>\n\
         <table><tr><th>client</th><th>disk</th><th>guest</th><th>state</th><th>used</th><th>cap</th><th>weight</th><th>pages</th>\
         <th>in tier</th><th>puts</th><th>gets</th><th>refused</th><th>damaged</th></tr>\n",
        version = escaped(&status.version),
        used = size(pool.used_bytes),
        limit = size(pool.limit_bytes),
        held = size(pool.held_bytes),
        pages = pool.stored_pages,
        logical = size(pool.logical_bytes),
        tiers = status
            .tiers
            .iter()
            .map(|tier| format!("<p>Tier {}.</p>\n", escaped(&tier.to_string())))
            .collect::<String>(),
    );
    for client in &status.clients {
        row(&mut page, client);
    }
    if status.clients.is_empty() {
        page.push_str(
            "<tr><td colspan=\"13\">No clients yet: <code>tmem disk add</code> makes one.</td></tr>\n",
        );
    }
    page.push_str("</table></body></html>\n");
    page
}

fn row(page: &mut String, client: &ClientStatus) {
    let size = |bytes| ByteSize::from_bytes(bytes).rounded();
    let disk = client.disk.as_ref();
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        page,
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
        escaped(&client.name),
        disk.map_or("-".to_owned(), |disk| size(disk.size_bytes)),
        disk.map_or("-", |disk| if disk.connected { "connected" } else { "none" }),
        if client.frozen { "frozen" } else { "-" },
        size(client.used_bytes),
        client.cap_bytes.map_or("-".to_owned(), size),
        client.weight,
        client.stored_pages,
        client.tiered_pages,
        client.puts,
        client.gets,
        client.refused_puts,
        client.checksum_errors,
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::sample;

    #[test]
    fn every_client_has_a_row_and_no_name_is_markup() {
        let mut status = sample();
        status.clients[0].name = "<script>".to_owned();
        let page = render(&status);
        assert!(
            page.contains("<td>&lt;script&gt;</td><td>16.0G</td><td>connected</td><td>frozen</td>"),
            "{page}"
        );
        assert!(page.contains("<td>vm2</td><td>-</td>"), "{page}");
        assert!(!page.contains("<script>"));
    }

    #[test]
    fn what_a_tier_has_and_lacks_is_shown() {
        let mut status = sample();
        status.tiers[0].trouble = Some("<no space>".to_owned());
        let page = render(&status);
        let line =
            format!("<p>Tier {}: {} (&lt;no space&gt;), ", status.tiers[0].name, status.tiers[0].state);
        assert!(page.contains(&line), "{page}");
        let client = &status.clients[0];
        let cells = format!(
            "<td>{}</td><td>{}</td><td>{}</td>",
            client.weight, client.stored_pages, client.tiered_pages
        );
        assert!(page.contains(&cells) && page.contains("<th>in tier</th>"), "{cells}: {page}");
    }

    #[test]
    fn an_empty_pool_says_what_to_do() {
        let page = render(&Status { clients: Vec::new(), ..sample() });
        assert!(page.contains("tmem disk add"));
    }
}
