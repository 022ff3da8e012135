//! No page of one tenant shows anything of another's.

use harness::Image;

use super::House;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_shows_whether_another_tenant_has_something() {
    let house = House::new().await;
    let (acme, other) = (house.token("acme").await, house.token("other").await);
    let image = Image::new(1, 1000);
    image
        .push(&house.repository("acme", &acme, "secret/app").await, "v1")
        .await;
    image
        .push(&house.repository("other", &other, "mine/app").await, "v1")
        .await;
    let pages = |name: &str| {
        let at = format!("/explorer/r/{name}");
        [
            at.clone(),
            format!("{at}/-/tags/v1"),
            format!("{at}/-/manifests/{}", image.digest()),
            format!("{at}/-/history/v1"),
            format!("{at}/-/retention/v1"),
            format!("{at}/-/deleted"),
            format!("{at}/-/usage"),
            format!("{at}/-/delete/tags/v1"),
            format!("{at}/-/delete/manifests/{}", image.digest()),
            format!("{at}/-/difference?from=v1&to=v1"),
            format!("{at}/-/files/{}", image.digest()),
            format!("{at}/-/packages/{}", image.digest()),
        ]
    };

    for visitor in [
        house.program("other", &other),
        house.person("other", &other).await,
    ] {
        let listed = visitor.get("/explorer/").await.expect(200).text();
        assert!(
            listed.contains("mine/app") && !listed.contains("secret"),
            "{listed}"
        );
        for (one, none) in pages("secret/app").iter().zip(pages("absent/app")) {
            for api in [false, true] {
                let path = |page: &str| match api {
                    true => page.replacen("/explorer/", "/explorer/api/", 1),
                    false => page.to_owned(),
                };
                let one = visitor.get(&path(one)).await.expect(404);
                let none = visitor.get(&path(&none)).await.expect(404);
                let one = one.text().replace("secret", "absent");
                assert_eq!(one, none.text(), "the answers differ");
            }
        }
    }
    // A token, and its session, are nobody at the other's host.
    house.program("acme", &other).get("/explorer/").await.expect(401);
    let guest = house.guest("acme");
    for (one, none) in pages("secret/app").iter().zip(pages("absent/app")) {
        let (one, none) = (
            guest.get(one).await.expect(303),
            guest.get(&none).await.expect(303),
        );
        let shown = |answer: &harness::http::Answer| answer.header("location").replace("secret", "absent");
        assert_eq!(shown(&one), shown(&none));
    }
}
